"""Backups that clients take away in pieces: the log of machines as a file of rstmdb's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from strata.server.rcp.operation import Operation

if TYPE_CHECKING:
    from strata.server.rcp.listener import Listener
    from strata.server.rcp.session import Session


class Staged:
    """A backup that a session has begun."""


class Backups:
    """The backups that are being taken away."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def sweep(self, session: Session, now: float) -> None:
        """Drop the backup of a session that has not asked for a piece in a long time."""

    def drop(self, session: Session) -> None:
        """Drop the backup of a session."""


TABLE: Final[tuple[Operation, ...]] = ()
