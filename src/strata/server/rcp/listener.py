"""The listener: what all clients of RCP share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strata.api.database import Database
from strata.core.errors import InvalidInput
from strata.server.rcp.backups import Backups
from strata.server.rcp.connection import Connection
from strata.server.rcp.log import Log
from strata.server.rcp.metrics import Stats
from strata.server.rcp.watches import Watches

if TYPE_CHECKING:
    from strata.server.server import Server


@dataclass(frozen=True, slots=True)
class Settings:
    """What a listener allows."""

    allow_flush_all: bool = False  # FLUSH_ALL, which removes everything
    recreate: bool = True  # an instance under the id of one that was deleted
    max_machine_versions: int = 0  # of one machine; 0: as many as there are numbers

    def __post_init__(self) -> None:
        count = self.max_machine_versions
        if type(count) is not int or count < 0:
            raise InvalidInput(f"the limit max_machine_versions is a number from 0, not {count!r}")


class Listener:
    """The machines of one database, for clients of rstmdb.

    They see the default branch and space. Connections live in the loop of `server`, whose limits, tokens
    and end are theirs too.
    """

    def __init__(self, server: Server, database: Database, settings: Settings | None = None) -> None:
        self.server = server
        self.database = database
        self.settings = settings or Settings()
        self.branch = database._branch
        self.log = Log(self.branch, database._space)
        self.stats = Stats()
        self.writes = 0  # operations that changed something, or may have
        self.watches = Watches(self)
        self.backups = Backups(self)

    def connection(self) -> Connection:
        """Return the server's side of a new connection."""
        return Connection(self)

    @property
    def active(self) -> int:
        """How many connections are open."""
        return sum(isinstance(one, Connection) for one in [*self.server.connections])

    def note_error(self, code: str) -> None:
        """Count an error."""
        self.stats.errors[code] += 1

    def metrics(self) -> str:
        """Return what Prometheus reads, under the names that rstmdb has for it."""
        from strata.server.rcp.metrics import text

        return text(self)
