"""Databases in other processes, with the same handles as one's own.

open       the database in a directory: our own, or served by the process that has it open
connect    the database that a server holds, by URL

`RemoteStore` is a `Store` (core/protocols.py) like the kernel's and the oracle's, so all that is made over a
store is the same code here: primitives, transactions, branches, search. The layers, from the top:

    shared, connect    how to get a channel
    store, txn         the protocols, each call one request
    link               which channel to use now; what happens when one is lost
    channel            one connection: many threads ask, answers come in any order. Or a session in this
    process
"""

from strata.remote.connect import connect
from strata.remote.shared import open

__all__ = ["connect", "open"]
