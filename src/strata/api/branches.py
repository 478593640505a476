"""The branches of a database: make, find, rename and delete them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from strata.api.instants import Instant, version_of
from strata.api.place import Branch
from strata.api.table import Table
from strata.core.errors import InvalidInput, NotFound, from_kernel
from strata.core.keys import check_name, check_text
from strata.core.protocols import BranchInfo, Snapshot, Store, Tag
from strata.core.refs import EntityRef
from strata.history.ancestry import unpin
from strata.history.diff import Limits
from strata.history.merge import MergeInfo, Merger, Note
from strata.history.notes import notes, write_note
from strata.history.plan import Strategy


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
        check_name(source, "branch")  # not one of our own, which not everybody may read
        version = None if at is None else version_of(self._store.branch(source), at)
        self._store.fork(source, check_name(name, "branch"), version)
        return self._handle(name)

    def get(self, name: str) -> BranchInfo:
        """Return what is known of a branch.

        Raises: NotFound, with the name that was probably meant.
        """
        self._store.branch(name)
        for info in self.list():
            if info.name == name:
                return info
        raise NotFound(what="branch", name=name)  # deleted between the two lines above

    def list(self) -> Table[BranchInfo]:
        """Return what is known of all branches, sorted by name."""
        return Table(info for info in self._store.branches() if not info.name.startswith("_"))

    def rename(self, old: str, new: str) -> int:
        """Give a branch another name, and return the version of that commit. Handles of it stay valid.

        Raises: NotFound, AlreadyExists.
        """
        return self._store.rename(check_name(old, "branch"), check_name(new, "branch"))

    def delete(self, name: str) -> int:
        """Delete a branch, and return the version of that commit. Its forks keep all that they see.

        Raises: NotFound.
        """
        info = self.get(name)
        version = self._store.delete(name)
        unpin(self._store, info.id)
        return version

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

    def note(self, version: int, text: str, branch: str = "main") -> int:
        """Write a note on a version of a branch, in the place of an earlier one; return the commit's version.

        Raises: NotFound for a version that is yet to come.
        """
        return write_note(self._store.branch(branch), version, text)

    def notes(self, branch: str = "main") -> dict[int, str]:
        """Return the notes on versions of a branch, those that it inherits too."""
        return notes(self._store.branch(branch).view())

    def merge(
        self,
        source: str,
        target: str = "main",
        strategy: Strategy = "strict",
        *,
        at: Instant | None = None,
        space: str | None = None,
        primitive: str | None = None,
        prefix: str | None = None,
        message: str | None = None,
        actor: str | None = None,
    ) -> MergeInfo:
        """Bring into `target` what changed on `source` since they parted, or were merged last, as one commit.

        Keys, documents (by path) and cells that only the source changed are taken; counters that both only
        added to add up; events follow those of the target, each with its origin; traces and runs are joined.

        Args:
            strategy: for what both changed, each in its own way. "strict" raises, "source" and "target" let
                one side win. A function is called with each conflict and returns one of
                `conflict.take_source()`, `.take_target()`, `.use(value)` and `.delete()`.
            at: merge the source as it was then.
            space, primitive, prefix: only this part. Such a merge is not remembered as one of the whole.
        Raises: MergeConflict with all conflicts, and nothing is written; NotFound; InvalidInput for a branch
            with itself, branches that have nothing in common, and what is no strategy or resolution;
            HistoryTrimmed when what they have in common is no longer kept.
        Cost: grows with what changed on the source, not with the data.
        """
        limits = Limits(space, primitive, prefix)
        return self._merger(target, message, actor).merge(self._state(source, at), strategy, limits)

    def preview(
        self,
        source: str,
        target: str = "main",
        *,
        at: Instant | None = None,
        space: str | None = None,
        primitive: str | None = None,
        prefix: str | None = None,
    ) -> MergeInfo:
        """Return what `merge` would change, and its conflicts. Writes nothing."""
        limits = Limits(space, primitive, prefix)
        merger = Merger(self._store, self._store.branch(target), dry=True)
        return merger.merge(self._state(source, at), "target", limits)

    def cherry_pick(
        self,
        source: str,
        picks: int | Iterable[int | EntityRef],
        target: str = "main",
        strategy: Strategy = "strict",
        *,
        message: str | None = None,
        actor: str | None = None,
    ) -> MergeInfo:
        """Bring some of what `source` has into `target`, as one commit.

        Args:
            picks: versions of commits of the source, each brought as the change that it was; or refs of
                things (keys, documents, cells, streams), each brought as `merge` would.
            strategy: as in `merge`.
        Raises: as `merge`; NotFound for a version that is no commit of the source.
        """
        merger = self._merger(target, message, actor)
        wanted = [picks] if isinstance(picks, int) else list(picks)
        if any(isinstance(pick, EntityRef) for pick in wanted):
            things = frozenset(map(_thing, wanted))
            return merger.merge(self._state(source, None), strategy, Limits(things=things))
        return merger.pick(self._store.branch(source), cast(list[int], wanted), strategy)

    def revert(
        self,
        first: int,
        last: int | None = None,
        branch: str = "main",
        strategy: Strategy = "strict",
        *,
        message: str | None = None,
        actor: str | None = None,
    ) -> MergeInfo:
        """Take back what the commits from version `first` to `last` (`first` alone) changed, as one commit.

        What changed since then again is a conflict. Events, traces and runs stay: they say what happened.
        Raises: MergeConflict; HistoryTrimmed.
        """
        merger = self._merger(branch, message, actor)
        return merger.revert(first, first if last is None else last, strategy)

    def reset(
        self, branch: str, at: Instant, *, message: str | None = None, actor: str | None = None
    ) -> MergeInfo:
        """Make a branch what it was at a point before, as one commit: nothing of its history goes.

        Events, traces and runs stay: they say what happened.
        Raises: NotFound; Protected; HistoryTrimmed.
        """
        version = version_of(self._store.branch(branch), at)
        return self._merger(branch, message, actor).reset(version)

    def undo(
        self,
        version: int,
        branch: str = "main",
        strategy: Strategy = "strict",
        *,
        message: str | None = None,
        actor: str | None = None,
    ) -> MergeInfo:
        """Take the merge that made `version` back, as one commit; merging again brings it again.

        Raises: InvalidInput when that was no merge; MergeConflict.
        """
        return self._merger(branch, message, actor).undo(version, strategy)

    def _merger(self, target: str, message: str | None, actor: str | None) -> Merger:
        for text, what in ((message, "message"), (actor, "actor")):
            if text is not None:
                check_text(text, what)
        return Merger(self._store, self._store.branch(target), Note(message, actor))

    def _state(self, name: str, at: Instant | None) -> Snapshot:
        branch = self._store.branch(name)
        return branch.view() if at is None else branch.view(version_of(branch, at))

    @property
    def tags(self) -> dict[str, Tag]:
        """All tags by name, sorted."""
        return {tag.name: tag for tag in self._store.tags() if not tag.name.startswith("_")}

    def __iter__(self) -> Iterator[str]:
        return (info.name for info in self.list())

    def __contains__(self, name: object) -> bool:
        return any(info.name == name for info in self.list())

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"<Branches {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return self.list()._repr_html_()

    def _handle(self, name: str) -> Branch:
        return Branch(self._store, self._store.branch(name), self._space)


def _thing(pick: object) -> tuple[str, str, str]:
    if not isinstance(pick, EntityRef):
        raise InvalidInput(f"versions and refs are not picked together, as {pick!r} is", hint="pick twice")
    return pick.space, pick.primitive, pick.key
