"""The lease: who delivers, of all workers on one database.

Who has it says so again and again; who stops gives it back. One that was killed leaves it behind: a worker
on the same machine sees that its process is gone, one elsewhere waits until it has run out. Each commit of
who delivers reads the lease, so one that was taken from them while they slept ends what they do.
"""

from __future__ import annotations

import functools
import os
import socket
from typing import Final

from strata.api.webhooks_rows import LEASE, Lease, read, write
from strata.core.atomic import atomically
from strata.core.protocols import Txn

LEASE_US: Final = 30_000_000
_RENEW_US: Final = LEASE_US // 3


class Tenant:
    """A worker, as the lease knows it."""

    def __init__(self) -> None:
        self.holder = _new_holder()

    def take(self, rows: Txn) -> int:
        """Take the lease, or go on having it; return 0, or until when somebody else has it."""
        now = rows.now
        found = read(rows, LEASE, Lease)
        if found is not None and found.holder == self.holder and found.until > now + LEASE_US - _RENEW_US:
            return 0
        return atomically(rows, self._take)[0]

    def _take(self, txn: Txn) -> int:
        found, now = read(txn, LEASE, Lease), txn.now
        if found is not None and found.holder != self.holder and found.until > now and _is_alive(found):
            return found.until
        if found is None or found.holder != self.holder:
            self.holder = _new_holder()  # so that what began before we lost it can write nothing any more
        write(txn, LEASE, Lease(self.holder, _machine(), os.getpid(), now + LEASE_US))
        return 0

    def give_back(self, rows: Txn) -> None:
        """Let somebody else have it at once."""

        def give(txn: Txn) -> None:
            if has_lease(txn, self.holder):
                txn.delete(LEASE)

        atomically(rows, give)


def has_lease(txn: Txn, holder: str) -> bool:
    """Return whether a holder has the lease."""
    found = read(txn, LEASE, Lease)
    return found is not None and found.holder == holder


def _is_alive(lease: Lease) -> bool:
    """Return whether who has a lease may still be there."""
    if lease.machine != _machine():
        return True
    if lease.process == os.getpid():
        return lease.holder.startswith(f"{_process_token()}/")
    try:
        os.kill(lease.process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _new_holder() -> str:
    return f"{_process_token()}/{os.urandom(8).hex()}"


_tokens: Final[dict[int, str]] = {}


def _process_token() -> str:
    """Return what tells this process from an earlier one with its number, and from its parent."""
    return _tokens.setdefault(os.getpid(), os.urandom(8).hex())


@functools.cache
def _machine() -> str:
    """Return what tells this machine, and this container, from others, as far as process numbers go."""
    said = [socket.gethostname()]
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            said.append(boot.read().strip())
        said.append(str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:
        pass
    return " ".join(said)
