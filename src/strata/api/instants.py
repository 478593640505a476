"""Points in history: a version, a tag, an aware datetime, or ISO 8601 text with an offset."""

from __future__ import annotations

from datetime import datetime

from strata.core.clock import to_micros
from strata.core.errors import InvalidInput
from strata.core.keys import check_int
from strata.core.protocols import Branch, Tag

Instant = int | datetime | str | Tag


def version_of(branch: Branch, when: Instant) -> int:
    """Return the version of `branch` that `when` names: itself, a tag's, or the newest up to an instant.

    Raises: InvalidInput for anything else, and for an instant without a time zone.
    """
    if type(when) is int:
        return when if 0 <= when < 2**63 else check_int(when, "version")  # which says why not
    if isinstance(when, Tag):
        if when.branch != branch.name:
            raise InvalidInput(
                f"tag {when.name!r} is of branch {when.branch!r}, not of {branch.name!r}",
                hint=f"as in db.branch({when.branch!r}).at(tag)",
            )
        return when.version
    if isinstance(when, str | datetime):
        return branch.version_at(to_micros(when))
    raise InvalidInput(
        f"a point in history is a version or an instant, not {when!r}",
        hint="as in db.at(17), db.at(datetime.now(UTC)) or db.at('2026-01-31T12:00Z')",
    )
