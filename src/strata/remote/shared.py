"""`open`: the database in a directory, whoever has it open.

The first process that opens a directory owns it, and works on it without detour. Others are its guests: they
are served over a local socket, whose address stands in the LOCK file, with the same handles. When the owner
goes, or is killed, one of the guests takes over; handles that are open there go on, and only a transaction
that was open is lost.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from typing import TYPE_CHECKING, Final

from strata.api.database import Database
from strata.api.encryption import Keys
from strata.api.opening import Clock, Durability, Opening
from strata.core.errors import Locked
from strata.core.protocols import Store
from strata.remote.channel import Channel, LocalChannel, Lost, greet
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.server.host import Host, listen
from strata.wire.frames import FRAME_BYTES_MAX, MAGIC, PROTOCOL
from strata.wire.session import Session

if TYPE_CHECKING:
    from strata.api.opening import SimDisk

_SHARED: Final = re.compile(r"pid \d+, shared at (.+)", re.DOTALL)
_PATIENCE_S: Final = 20.0  # an owner may be recovering, or writing out at its end
_DOUBT_S: Final = 2.0  # an owner says who it is just after it has the lock; on a busy disk that takes a while
_READER: Final = "by a reader"  # what the lock says of one who has not said who it is
_PAUSE_MIN_S: Final = 0.001
_PAUSE_MAX_S: Final = 0.05


class Owner:
    """How this process comes to a database that several open: as its owner, or as a guest of that."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._address: str | None = None  # of the socket of who owns it, as far as we know
        self._hello = {
            "magic": MAGIC,
            "protocols": [PROTOCOL],
            "link": os.urandom(16).hex(),
            "read_only": opening.read_only,
            "strict": opening.mode == "strict",
        }
        self.host: Host | None = None
        self.store: Store | None = None  # once it is ours

    def own(self) -> Store:
        """Return the store, which is ours now.

        Raises: Locked, and what opening raises.
        """
        if self._opening.read_only:
            self.store = self._opening.store()
            return self.store
        try:
            listening, address = listen()
        except OSError:  # there can be no socket here: others find the directory locked
            self.store = self._opening.store()
            return self.store
        try:
            self.store = self._opening.store(shared_at=address)
        except BaseException:
            listening.close()
            os.unlink(address)
            raise
        self.host = Host(self.store, listening, address)
        return self.store

    def note(self, locked: Locked) -> None:
        """Remember where who has it open serves others. Raises `locked` when it says that it does not."""
        found = _SHARED.match(locked.owner)
        if found is not None:
            self._address = found[1]
        elif locked.owner != _READER:
            raise locked

    def channel(self, number: int) -> Channel:
        """Return a way to the store: over the socket of its owner, or as its owner.

        Raises: Locked when neither can be had in time, and what opening raises.
        """
        until = time.monotonic() + _PATIENCE_S
        doubts_until = time.monotonic() + _DOUBT_S
        pause_s = _PAUSE_MIN_S
        while True:
            try:
                return self._connect(number)
            except (OSError, Lost):
                pass  # nobody is there, or no more
            try:
                return LocalChannel(Session(self.own()), number)
            except Locked as error:
                self.note(error)
                now = time.monotonic()
                if error.owner != _READER:
                    doubts_until = now + _DOUBT_S
                if now > min(until, doubts_until):
                    raise
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _connect(self, number: int) -> Channel:
        if self._address is None:
            raise ConnectionRefusedError
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(self._address)
            return greet(made, number, self._hello, FRAME_BYTES_MAX)[0]
        except BaseException:
            made.close()
            raise

    def close(self) -> None:
        """Send guests away, and give the directory up."""
        if self.host is not None:
            self.host.close()
        if self.store is not None:
            self.store.close()


class SharedStore(RemoteStore):
    """The store of a guest, and of one who became its owner."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Owner) -> None:
        super().__init__(Link(owner.channel, owner.channel(1)))
        self._owner = owner

    def close(self) -> None:
        super().close()
        self._owner.close()


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    durability: Durability | None = None,
    branch: str = "main",
    space: str = "default",
    create: bool = True,
    read_only: bool = False,
    shared: bool = True,
    memory_budget: int | None = None,
    flush_interval_ms: float = 100,
    key: Keys | None = None,
    disk: SimDisk | None = None,
    clock: Clock | None = None,
) -> Database:
    """Open the database in directory `path`, or a new one in memory when there is no path.

    Any number of processes may open one directory. The first owns it; the others are served by it, with the
    same handles and promises, and when it goes one of them takes over.

    Args:
        durability: "buffered" (the default with a path): nothing acknowledged is lost to a killed process,
            and a power cut takes at most the last flush interval. "strict": nothing is lost to either; each
            commit waits for the disk. "memory": no files; all is gone with the process.
        branch, space: what `db.kv` and the others work on. The branch must exist ("main" always does).
        create: make the directory when it does not exist; else that is NotFound.
        read_only: refuse every write.
        shared: False insists on being the only process that has it open.
        memory_budget: bytes of memory for data: half for what is written, a quarter for what is read from
            files; the rest comes and goes. At least 1 MiB. Left out: a quarter of the machine's memory. It
            is the owner's that counts, as does `flush_interval_ms`.
        flush_interval_ms: how much a power cut may take in buffered mode.
        key: encrypt a new database, and open one that is encrypted: 32 random bytes, a Path to a file with
            them or with 64 hex digits, or a function that is called with the id of the key that is needed
            (None: one for a new database) and returns one of these. A sequence: the current key, older ones.
        disk, clock: simulated ones, for tests (`strata.testing`); such a database is not shared.
    Raises: InvalidInput for a directory that is not a database, and for what is no key; ReadOnly when a newer
        version wrote it; NeedsKey when it is encrypted with a key that was not given; Locked when it is open
        elsewhere and not shared; Corrupt, with file and offset, when it is damaged; NotFound when there is
        nothing and `create` is False. Nothing in it changes then.
    """
    opening = Opening(
        path=path,
        durability=durability,
        branch=branch,
        space=space,
        create=create,
        read_only=read_only,
        memory_budget=memory_budget,
        flush_interval_ms=flush_interval_ms,
        key=key,
        disk=disk,
        clock=clock,
    )
    if opening.directory is None or disk is not None or clock is not None or not shared:
        return opening.database(opening.store())
    owner = Owner(opening)
    try:
        store = owner.own()
    except Locked as error:
        owner.note(error)
        return _guest(opening, owner)
    return opening.database(store, closes=owner)


def _guest(opening: Opening, owner: Owner) -> Database:
    store = SharedStore(owner)
    try:
        opening.check_keys()
    except BaseException:
        store.close()
        raise
    return opening.database(store)
