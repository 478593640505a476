"""A session: who asks, what they may, and what is kept for them between their requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from strata.server.rcp.errors import Refused
from strata.server.rcp.operation import Operation
from strata.wire.asks import ACCESSES, Access

if TYPE_CHECKING:
    from strata.server.rcp.backups import Staged
    from strata.server.rcp.connection import Connection
    from strata.server.rcp.listener import Listener

Cursor = tuple[str | None, str | None, int]  # machine, state, offset
_CURSORS_MAX: Final = 64


class Session:
    """What one connection may do and has begun."""

    def __init__(self, listener: Listener, connection: Connection) -> None:
        self.listener = listener
        self.connection = connection
        self.settings = listener.settings
        self.database = listener.database
        self.machines = listener.database.machines
        self.token: str | None = None
        self.access: Access | None = "admin" if listener.server.tokens is None else None
        self.omits_nulls = False  # of results: whether null is left out
        self.is_line = False  # how the request came that is answered now
        self.is_over = False
        self.cursors: dict[Cursor, str] = {}  # behind which instance a page begins
        self.backup: Staged | None = None

    @property
    def needs_token(self) -> bool:
        """Whether who asks has to say a token."""
        return self.listener.server.tokens is not None

    def let_in(self, token: str) -> None:
        """Let a token count. Raises: AccessDenied."""
        self.access = self.listener.server.access_of(token)
        self.token = token

    def check(self, operation: Operation) -> None:
        """Do nothing if an operation may be asked for. Here all of them are looked at, watches too.

        Raises: Refused.
        """
        needed, given = operation.access, self.access
        if needed is None:
            return
        if given is None:
            raise Refused("UNAUTHORIZED", f"{operation.name} needs a token: say AUTH first")
        if needed != given and ACCESSES.index(needed) > ACCESSES.index(given):
            details = {"needed": needed, "given": given}
            raise Refused("UNAUTHORIZED", f"{operation.name} needs {needed}, not {given}", details)
        if operation.writes and self.listener.server.read_only:
            raise Refused("READ_ONLY_MODE", "this server only reads")

    def sweep(self, now: float) -> None:
        """Let go of what nobody has asked for in a long time."""
        self.listener.backups.sweep(self, now)

    def end(self) -> None:
        """Let go of what the client has begun."""
        self.listener.backups.drop(self)

    def keep_cursor(self, cursor: Cursor, id: str) -> None:
        """Remember behind which instance a page begins."""
        if len(self.cursors) >= _CURSORS_MAX:
            self.cursors.clear()
        self.cursors[cursor] = id
