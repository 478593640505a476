"""The branches of a database: make, find, rename and delete them."""

from __future__ import annotations

from collections.abc import Iterator

from strata.api.instants import Instant, version_of
from strata.api.place import Branch
from strata.api.table import Table
from strata.core.errors import NotFound
from strata.core.keys import check_name
from strata.core.protocols import BranchInfo, Store


class Branches:
    """All branches. Iterates over their names; `db.branch(name)` is the handle to work with one."""

    __slots__ = ("_space", "_store")

    def __init__(self, store: Store, space: str) -> None:
        self._store = store
        self._space = space

    def create(self, name: str) -> Branch:
        """Make an empty branch and return its handle.

        Raises: AlreadyExists.
        """
        self._store.create(check_name(name, "branch"))
        return self._handle(name)

    def fork(self, source: str, name: str, *, at: Instant | None = None) -> Branch:
        """Make a branch that begins with all that `source` holds, now or `at` some point before; return it.

        Neither sees what the other writes from then on.
        Raises: NotFound, AlreadyExists; HistoryTrimmed when `at` is no longer kept.
        Cost: one record, whatever the size; nothing is copied.
        """
        version = None if at is None else version_of(self._store.branch(source), at)
        self._store.fork(source, check_name(name, "branch"), version)
        return self._handle(name)

    def get(self, name: str) -> BranchInfo:
        """Return what is known of a branch.

        Raises: NotFound, with the name that was probably meant.
        """
        self._store.branch(name)
        for info in self._store.branches():
            if info.name == name:
                return info
        raise NotFound(what="branch", name=name)  # deleted between the two lines above

    def list(self) -> Table[BranchInfo]:
        """Return what is known of all branches, sorted by name."""
        return Table(self._store.branches())

    def rename(self, old: str, new: str) -> int:
        """Give a branch another name, and return the version of that commit. Handles of it stay valid.

        Raises: NotFound, AlreadyExists.
        """
        return self._store.rename(old, check_name(new, "branch"))

    def delete(self, name: str) -> int:
        """Delete a branch, and return the version of that commit. Its forks keep all that they see.

        Raises: NotFound.
        """
        return self._store.delete(name)

    def __iter__(self) -> Iterator[str]:
        return (info.name for info in self._store.branches())

    def __contains__(self, name: object) -> bool:
        return any(info.name == name for info in self._store.branches())

    def __len__(self) -> int:
        return len(self._store.branches())

    def __repr__(self) -> str:
        return f"<Branches {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return self.list()._repr_html_()

    def _handle(self, name: str) -> Branch:
        return Branch(self._store, self._store.branch(name), self._space)
