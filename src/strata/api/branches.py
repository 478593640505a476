"""The branches of a database: make, find, rename and delete them."""

from __future__ import annotations

from collections.abc import Iterator

from strata.api.instants import Instant, version_of
from strata.api.place import Branch
from strata.api.table import Table
from strata.core.errors import NotFound, from_kernel
from strata.core.keys import check_name, check_text
from strata.core.protocols import BranchInfo, Store, Tag


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

    def protect(self, name: str, reason: str = "it is protected") -> int:
        """Refuse all writes to a branch, and to delete or rename it; return the version of that.

        Writes, merges into it among them, raise Protected with `reason`. Forks of it are free.
        Raises: NotFound.
        """
        return self._store.seal(name, check_text(reason, "reason"), True)

    def unprotect(self, name: str) -> int:
        """Let a branch be written to again, and return the version of that.

        Raises: NotFound; RunClosed for the branch of a run that is over, which stays as it is.
        """
        info = self.get(name)
        if info.sealed is not None and not info.protected:
            raise from_kernel("Protected", "", {"branch": name, "reason": info.sealed})
        return self._store.seal(name, None)

    def tag(
        self, name: str, branch: str = "main", *, at: Instant | None = None, note: str | None = None
    ) -> Tag:
        """Name a version of a branch, its newest or that `at` some point before, and return the tag.

        What it names stays readable whatever `retention` says, until the tag is taken away or its branch is
        deleted: `db.at(db.branches.tags["v1"])` reads it, and a fork may begin there.
        Raises: AlreadyExists; NotFound; HistoryTrimmed when `at` is no longer kept.
        """
        version = None if at is None else version_of(self._store.branch(branch), at)
        check_name(name, "tag")
        self._store.tag(name, branch, version, None if note is None else check_text(note, "note"))
        return self.tags[name]

    def untag(self, name: str) -> int:
        """Take a tag away, and return the version of that.

        Raises: NotFound.
        """
        return self._store.untag(name)

    @property
    def tags(self) -> dict[str, Tag]:
        """All tags by name, sorted."""
        return {tag.name: tag for tag in self._store.tags()}

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
