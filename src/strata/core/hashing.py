"""Our embedder: words and pieces of words, hashed into a few hundred numbers. No model, no download.

Texts that share words, or words that share letters (`colour`, `colours`, `coloring`), get vectors that point
alike. It knows nothing of meaning: *car* and *automobile* are strangers. It is there so that hybrid search,
examples and tests need nothing else, and as what a model has to beat.

A feature is a word, or 3 or 4 letters in a row of `<word>`. Its hash says which number it goes to, and with
which sign, so that features that meet there cancel out on average (Weinberger et al. 2009,
arXiv:0902.2206).

Invariant: the same text gives the same vector, to the last bit, on every machine: sums are of integers, and
what follows (a square root, a division) is rounded in one way by IEEE 754. Stored vectors rely on it, so
the features are never changed under the same name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from strata.core.errors import InvalidInput

_WORD: Final = re.compile(r"[^\W_]+")
# Measured on LoCoMo (benchmarks/recall): 3 to 1, and 3 and 4 letters, find most.
_OF_WORD: Final = 3
_OF_PIECE: Final = 1
_PIECES: Final = (3, 4)
_LONGEST: Final = 64  # letters of a word that count: what is longer is a key or a picture
# The commonest words of English. Without a corpus to count in, this is the only weight that rarity gets.
_COMMON_WORDS: Final = """
    a about after all also am an and any are as at be because been before being but by can could d did do
    does doing don for from had has have having he her hers him his how i if in into is it its ll m me more
    most my no nor not now of off on once only or other our ours out over own re s same she should so some
    such t than that the their theirs them then there these they this those through to too under until up ve
    very was we were what when where which while who whom why will with would you your yours
"""
_COMMON: Final = frozenset(_COMMON_WORDS.split())


class HashingEmbedder:
    """Makes vectors of texts by hashing words and pieces of words. Deterministic; needs nothing.

    Args:
        dim: 64 to 4,096. More is better and slower to search: 512 finds a tenth more than 256.
    """

    __slots__ = ("dim", "name")

    timeout_s: None = None  # it cannot hang

    def __init__(self, dim: int = 256) -> None:
        if type(dim) is not int or not 64 <= dim <= 4096:
            raise InvalidInput(f"the dim of the hashing embedder is an int from 64 to 4096, not {dim!r}")
        self.dim = dim
        self.name = f"hashing-{dim}"

    def embed(self, texts: Sequence[str], /) -> list[list[float]]:
        """Return a vector of length 1 for each text; of zeros where it has no word to go by."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        sums = [0] * self.dim
        for word in _WORD.findall(text.casefold()):
            for hashed, weight in _features(word[:_LONGEST]):
                sums[hashed % self.dim] += weight
        length = math.sqrt(sum(number * number for number in sums))
        return [number / length for number in sums] if length else [0.0] * self.dim

    def __repr__(self) -> str:
        return f"HashingEmbedder({self.dim})"


@lru_cache(maxsize=16_384)
def _features(word: str) -> tuple[tuple[int, int], ...]:
    """Return (hash, signed weight) of each feature of a word."""
    if word in _COMMON:
        return ()
    framed = f"<{word}>"
    pieces = (framed[at : at + size] for size in _PIECES for at in range(len(framed) - size + 1))
    return (_hashed(f"w{word}", _OF_WORD), *(_hashed(f"p{piece}", _OF_PIECE) for piece in pieces))


def _hashed(feature: str, weight: int) -> tuple[int, int]:
    digest = int.from_bytes(hashlib.blake2b(feature.encode(errors="replace"), digest_size=8).digest())
    return digest >> 1, weight if digest & 1 else -weight
