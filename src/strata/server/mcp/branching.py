"""Branch and merge: to try something without touching what is, and to take it over."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from strata.api.plain import plain
from strata.core.changes import Change
from strata.core.errors import InvalidInput, MergeConflict
from strata.core.protocols import BranchInfo
from strata.history.merge import MergeInfo
from strata.server.mcp.answers import Branched, BranchLine, Conflict, Difference, Merged
from strata.server.mcp.requests import BranchChange, BranchLook, Differing, Merge
from strata.server.mcp.scope import Door
from strata.server.mcp.shown import Budget, clean, said

BRANCHES_SHOWN: Final = 200
SIDE_CHARS: Final = 2_000  # of a value that differs
_RESOLVE: Final = "choose a strategy, or write what is right to both branches, and merge again"


def branch(door: Door, request: BranchLook | BranchChange, actor: str | None) -> Branched:
    """List branches, make or delete one, or say what differs.

    Raises: InvalidInput for what an action lacks or has no use for; NotFound; AlreadyExists; Protected.
    """
    if request.action == "list":
        return _list(door)
    if request.action == "diff":
        return _diff(door, request)
    assert isinstance(request, BranchChange)  # the other has no such action
    return _fork(door, request) if request.action == "fork" else _delete(door, request)


def _list(door: Door) -> Branched:
    budget = Budget()
    lines: list[BranchLine] = []
    for info in door.database.branches.list():
        if not door.scope.holds(info.name):
            continue
        if budget.over or len(lines) == BRANCHES_SHOWN:
            return Branched(branches=lines, truncated=True)
        lines.append(_line(door, info))
        budget.named(lines[-1].name, lines[-1].parent, lines[-1].protected)
    return Branched(branches=lines)


def _line(door: Door, info: BranchInfo) -> BranchLine:
    is_seen = info.parent is not None and door.scope.holds(info.parent)
    return BranchLine(
        name=clean(info.name),
        head=info.head,
        parent=clean(info.parent or "") if is_seen else None,
        fork_version=info.fork_version,
        protected=said(info.sealed),
    )


def _fork(door: Door, request: BranchChange) -> Branched:
    at = None if request.at is None else door.instant(request.at)
    made = door.database.branches.fork(door.branch(request.branch), _named(request), at=at)
    return Branched(branches=[_line(door, door.database.branches.get(made.name))])


def _delete(door: Door, request: BranchChange) -> Branched:
    if door.scope.space is not None:
        raise InvalidInput("a branch has all spaces, and this server reaches one: it deletes none")
    return Branched(version=door.database.branches.delete(_named(request)))


def _named(request: BranchChange) -> str:
    if request.name is None:
        raise InvalidInput(f"{request.action} needs the name of a branch", hint='as in {"name": "try-it"}')
    return request.name


def _diff(door: Door, request: Differing) -> Branched:
    if request.old is None:
        raise InvalidInput("diff needs old: what was", hint='as in {"old": "main", "new": "try-it"}')
    place = door.place(request.branch)
    space = door.space(request.space) if door.scope.space is not None else request.space
    differing = place.diff(
        _state(door, request.old),
        None if request.new is None else _state(door, request.new),
        space=space,
        primitive=request.primitive,
        prefix=request.prefix,
    )
    home = request.new if isinstance(request.new, str) and not request.new.isdigit() else request.branch
    changes, cut = differences(differing, door.branch(home), request.limit, Budget())
    return Branched(changes=changes, truncated=cut)


def _state(door: Door, of: int | str) -> Any:
    """Return what a model wrote for a state: a version or tag of `branch`, or a branch by its name."""
    if isinstance(of, int) or (of.isascii() and of.isdigit()):
        return int(of)
    tag = door.database.branches.tags.get(of)
    return door.branch(of) if tag is None or not door.scope.holds(tag.branch) else tag


def differences(
    found: Iterable[Change], branch: str, limit: int, budget: Budget
) -> tuple[list[Difference], bool]:
    """Return the first of some changes as answers have them, and whether that is not all."""
    shown: list[Difference] = []
    cut = False
    for change in islice(found, limit + 1):
        if len(shown) == limit or budget.over:
            return shown, True
        ref = str(change.ref(branch))
        budget.named(ref)
        old, old_cut = budget.fit(change.old, SIDE_CHARS)
        new, new_cut = budget.fit(change.new, SIDE_CHARS)
        cut = cut or old_cut or new_cut
        shown.append(Difference(what=change.what, ref=ref, old=old, new=new))
    return shown, cut


def merge(door: Door, request: Merge, actor: str | None) -> Merged:
    """Bring what changed on a branch into another, as one commit; or say what that would be.

    Raises: MergeConflict with all conflicts, and nothing is written; NotFound; InvalidInput for branches that
        have nothing in common.
    """
    source, target = door.branch(request.source), door.branch(request.target)
    space = door.space(request.space) if door.scope.space is not None else request.space
    where: dict[str, Any] = {"space": space, "primitive": request.primitive, "prefix": request.prefix}
    branches = door.database.branches
    if request.preview:
        info = branches.preview(source, target, **where)
    else:
        said = {"message": request.message, "actor": actor}
        try:
            info = branches.merge(source, target, request.strategy, **where, **said)
        except MergeConflict as error:
            raise MergeConflict(
                error.message, conflicts=conflicts(error.conflicts, target, Budget()), hint=_RESOLVE
            ) from None
    return _merged(info, request)


def _merged(info: MergeInfo, request: Merge) -> Merged:
    budget = Budget()
    contested = conflicts(info.conflicts, info.target, budget)
    changes, cut = differences(info.changes, info.target, request.limit, budget)
    return Merged(
        preview=request.preview,
        changes=changes,
        conflicts=contested,
        version=info.version,
        truncated=cut or budget.cut or len(contested) < len(info.conflicts),
    )


def conflicts(found: Iterable[Any], target: str, budget: Budget, limit: int = 50) -> list[Conflict]:
    """Return the first of some conflicts as answers have them; they may come from another process."""
    shown = []
    for contested in islice(found, limit):
        if budget.over:
            break
        data = plain(contested)  # without the sides where there is nothing
        sides = {
            name: budget.fit(data[name], SIDE_CHARS)[0]
            for name in ("base", "source", "target")
            if name in data
        }
        change = Change("changed", data["space"], data["primitive"], data["key"], data.get("path"))
        shown.append(Conflict(ref=str(change.ref(target)), **sides))
        budget.named(shown[-1].ref)
    return shown
