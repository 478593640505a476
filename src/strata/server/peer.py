"""Peers: what a server asks of each connection, whatever protocol it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from strata.server.access import Tokens


class Peer(Protocol):
    """The server's side of a connection."""

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for is not answered yet."""

    def sweep(self, now: float) -> None:
        """Do what is due when nothing was heard for long."""

    def check_token(self, tokens: Tokens, /) -> None:
        """Close the connection when its token does not allow what it did."""

    def stop_waiting(self) -> None:
        """End what only waits for something to happen."""

    def say_goodbye(self, reason: str) -> None:
        """Tell the client that nothing more will be answered than what it has asked for."""

    def close(self) -> None:
        """Close once the client has read what was said, or does not do so in time."""

    def abort(self) -> None:
        """Close now."""
