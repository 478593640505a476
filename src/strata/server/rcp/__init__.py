"""RCP: the protocol of rstmdb, so that its clients find their machines here.

    frames         bytes to messages, and back        instances, batches   what is asked about machines
    envelopes      what messages are as JSON           subscriptions,
    errors         our errors, by their codes            watches           events as they come
    offsets, log   the log of machines                 upkeep, backups     the log, the files
    session        who asks, and whether they may      conversation        who speaks
    connection     one client                          metrics             what was counted
    listener       what all clients share

It translates, and knows nothing of machines itself: what an operation does is done by `db.machines`.
"""

from strata.server.rcp.listener import Listener, Settings

__all__ = ["Listener", "Settings"]
