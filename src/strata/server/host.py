"""The owner of a directory, as host of the other processes on the machine that open it.

Its socket lies in a directory for sockets, one for each user, which nobody else may enter; the LOCK file
says where. (In the database's own directory it would be in the way of whoever copies that.) Until the first
guest connects a host costs a thread that waits: the server, its loop and what they import come with the
guest.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strata.core.protocols import Store

if TYPE_CHECKING:
    from strata.server.server import Server

_BACKLOG: Final = 128
_KEPT_MAX: Final = 32  # sockets that killed owners left behind, before they are looked for


class Host:
    """Serves a store to whoever connects to the socket in its directory."""

    def __init__(self, store: Store, listening: socket.socket, address: str) -> None:
        self._address = address
        self._server: Server | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._socket = listening
        # A store that nobody holds any more closes, although we wait for guests.
        self._store = weakref.ref(store, lambda _: self._stop_waiting())
        self._thread = threading.Thread(target=self._wait, name="strata-host", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:
            return  # it was closed
        with self._lock:
            store = self._store()
            if self._is_closed or store is None:
                accepted.close()
                return
            try:
                self._server = _server_of(store)
            except RuntimeError:  # the program ends, and can begin no thread any more
                accepted.close()
                return
            accepted.setblocking(False)
            self._server.adopt(accepted)
            self._server.listen_on(self._socket)

    def _stop_waiting(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which wakes `accept`
        self._socket.close()

    def close(self) -> None:
        """Let what guests have asked for end, and send them away. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        if os.getpid() != self._process:
            return  # a forked child: the socket is its parent's
        # First its name goes: who comes now waits for the next owner.
        with contextlib.suppress(OSError):
            os.unlink(self._address)
        if self._server is None:
            self._stop_waiting()
        self._thread.join()
        if self._server is not None:
            self._server.close()


def _server_of(store: Store) -> Server:
    from strata.server.limits import Limits
    from strata.server.server import Server

    # Guests are our own processes: what each may take is bounded, how long it is silent is not.
    return Server(store, limits=Limits(transaction_idle_s=3600), name="strata-host")


def listen() -> tuple[socket.socket, str]:
    """Return a socket that waits for guests, and its address.

    Raises: OSError where there can be none.
    """
    directory = _directory()
    address = str(directory / f"{os.getpid()}-{os.urandom(6).hex()}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(address)
        os.chmod(address, 0o600)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made, address


def _directory() -> Path:
    """Return our directory for sockets. Raises OSError when it is not ours alone."""
    directory = Path(tempfile.gettempdir()) / f"strata-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} can be entered by others")
    names = os.listdir(directory)
    if len(names) > _KEPT_MAX:
        for name in names:
            _remove_if_dead(directory / name)
    return directory


def _remove_if_dead(path: Path) -> None:
    """Remove the socket of an owner that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, contextlib.suppress(OSError):
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
