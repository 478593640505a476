"""Search: one request over all primitives. `db.search` is the way in; here is what it takes and gives.

request.py    what is asked for, checked
engine.py     from what indexes say to hits: take, context, fuse, boost, rerank
fusion.py     reciprocal rank fusion
context.py    a turn of a conversation with what stands around it
boosts.py     recency, importance
results.py    hits, statistics, near misses       snippets.py   why it was found, in a line
over.py       what entered and left between two states
models.py     plugging in embedders and rerankers        http.py   those behind HTTP
"""

from strata.core.embedding import Embedder, register, registered
from strata.core.hashing import HashingEmbedder
from strata.search.boosts import Importance, Recency
from strata.search.context import Context
from strata.search.fusion import Signal, Term
from strata.search.http import HttpEmbedder, HttpReranker
from strata.search.models import CallableEmbedder, CallableReranker, Reranker
from strata.search.over import Over
from strata.search.request import Request
from strata.search.results import Hit, ListStatistics, NearMiss, Results, Statistics
from strata.search.snippets import Snippet

__all__ = [
    "CallableEmbedder",
    "CallableReranker",
    "Context",
    "Embedder",
    "HashingEmbedder",
    "Hit",
    "HttpEmbedder",
    "HttpReranker",
    "Importance",
    "ListStatistics",
    "NearMiss",
    "Over",
    "Recency",
    "Request",
    "Reranker",
    "Results",
    "Signal",
    "Snippet",
    "Statistics",
    "Term",
    "register",
    "registered",
]
