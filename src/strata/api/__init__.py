"""Handles and lifetimes: how a program reaches the primitives.

face.py         the primitives of one place, as attributes
place.py        Branch, Space: read and write, look back, begin a transaction
view.py         the same at an earlier version, read-only
transaction.py  the same inside a transaction
branches.py     make, find, rename, delete branches
encryption.py   keys, in the forms in which they are given
portable.py     bundles and backups
ingest.py       what others recorded: spans, transcripts
runs.py         executions of an agent: branches with a lifecycle
search.py       one question to all indexes
replay.py       a run, or another stretch of history, step by step
salvage.py      what is whole of a damaged database
retention.py    how much history is kept
database.py     Database
opening.py      what opening one takes
checksum.py     CRC32C by the kernel, for frames and files of others
rstmdb/         the log and the backups of rstmdb: as bytes, and as machines
operations.py   the catalogue of every public operation (imported by whoever lists operations)
dispatch.py     run one by its name with plain data: requests.py, plain.py, revive.py, schema.py, examples.py
"""

from strata.api.branches import Branches
from strata.api.database import Database
from strata.api.face import Spaces
from strata.api.place import Branch, Space
from strata.api.portable import import_, restore, verify_bundle
from strata.api.retention import Retention
from strata.api.runs import Run, Runs
from strata.api.salvage import salvage
from strata.api.transaction import Transaction
from strata.api.view import View

__all__ = [
    "Branch",
    "Branches",
    "Database",
    "Retention",
    "Run",
    "Runs",
    "Space",
    "Spaces",
    "Transaction",
    "View",
    "import_",
    "restore",
    "salvage",
    "verify_bundle",
]
