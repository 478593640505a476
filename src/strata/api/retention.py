"""Retention: how much history to keep, and where."""

from __future__ import annotations

import builtins
from dataclasses import dataclass

from strata.api.table import Table
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import Store
from strata.core.retention import KeepAll, Policy, bounds_of, policy_of
from strata.primitives import PRIMITIVES

_Names = tuple[str | None, str | None, str | None]  # branch, space, primitive; None is all


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A policy, and what it is for; None is all."""

    branch: str | None
    space: str | None
    primitive: str | None
    policy: Policy


class Retention:
    """The retention policies of a database. A primitive counts more than a space, a space more than a branch.

    They are about what compaction keeps, and are no part of history: a change is durable at once, has no
    version, and holds in all views.
    """

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(
        self,
        policy: Policy,
        *,
        branch: str | None = None,
        space: str | None = None,
        primitive: str | None = None,
    ) -> None:
        """Keep what `policy` says from the next compaction on, in the place of a policy for the same.

        Args:
            policy: `KeepAll()`, `KeepLast(n)`, `KeepFor(duration)`, or a `KeepLast` and a `KeepFor` with `|`
                or `&` between them.
            branch, space, primitive: what it is for; what is not named is all. The branch is that of the
                commit: what a fork has from before, the policy of its parent decides.
        Raises: NotFound for a branch that does not exist; InvalidInput for no policy or no primitive.
        """
        bounds = bounds_of(policy)
        self._store.set_policy(*_checked(branch, space, primitive), *bounds)

    def get(
        self, *, branch: str | None = None, space: str | None = None, primitive: str | None = None
    ) -> Policy:
        """Return the policy in force for what is named: the most specific that covers it, or `KeepAll()`.

        Raises: NotFound for a branch that does not exist; InvalidInput for no primitive.
        """
        names = self._known(branch, space, primitive)
        covering = [rule for rule in self.list() if _covers(rule, names)]
        return max(covering, key=_rank).policy if covering else KeepAll()

    def list(self) -> Table[RetentionRule]:
        """Return the policies that were set, the most general first."""
        rows = (row for row in self._store.policies() if not (row[0] or "").startswith("_"))  # ours
        found = [RetentionRule(*row[:3], policy_of(*row[3:])) for row in rows]
        return Table(sorted(found, key=lambda rule: (_rank(rule), str(_names(rule)))))

    def clear(
        self, *, branch: str | None = None, space: str | None = None, primitive: str | None = None
    ) -> bool:
        """Take back the policy that was set for exactly this; return whether there was one.

        Raises: NotFound for a branch that does not exist; InvalidInput for no primitive.
        """
        return self._store.clear_policy(*self._known(branch, space, primitive))

    def _known(self, branch: str | None, space: str | None, primitive: str | None) -> _Names:
        names = _checked(branch, space, primitive)
        if branch is not None:
            self._store.branch(branch)
        return names

    def __repr__(self) -> str:
        return f"<Retention {len(self.list())} policies>"

    def _repr_html_(self) -> str:
        return self.list()._repr_html_()


def check_primitive(name: object) -> str:
    """Return `name` if it is that of a primitive."""
    if isinstance(name, str) and name in PRIMITIVES:
        return name
    raise InvalidInput(f"{name!r} is no primitive", hint=f"one of {', '.join(PRIMITIVES)}")


def _checked(branch: str | None, space: str | None, primitive: str | None) -> _Names:
    return (
        None if branch is None else check_name(branch, "branch"),
        None if space is None else check_name(space, "space"),
        None if primitive is None else check_primitive(primitive),
    )


def _names(rule: RetentionRule) -> _Names:
    return rule.branch, rule.space, rule.primitive


def _covers(rule: RetentionRule, names: _Names) -> bool:
    return all(own is None or own == name for own, name in zip(_names(rule), names, strict=True))


def _rank(rule: RetentionRule) -> builtins.list[bool]:
    return [name is not None for name in reversed(_names(rule))]
