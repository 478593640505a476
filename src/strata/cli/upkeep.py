"""Give space back, say how much history to keep, forget, and change the key."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from datetime import timedelta
from pathlib import Path
from typing import Any

from strata.cli.opening import open_database
from strata.core.errors import InvalidInput
from strata.core.retention import KeepAll, KeepFor, KeepLast, Policy

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LARGE_ROWS = 1_000_000  # less is done before anybody looks


def compact(arguments: Namespace) -> int:
    """Give back what nobody can read any more; print what came back."""
    with open_database(arguments, create=False) as db:
        if arguments.log:
            done = db.compact("log")
        else:
            done = db.compact(progress=_shown if sys.stderr.isatty() else None)
    print(
        f"{done.reclaimed_bytes:,} bytes given back, {done.versions_removed:,} versions"
        f" and {done.log_segments_removed:,} log segments removed"
    )
    return 0


def retention(arguments: Namespace) -> int:
    """Set or take back a policy; print those there are."""
    place: dict[str, Any] = {name: getattr(arguments, name) for name in ("branch", "space", "primitive")}
    policy = None if arguments.set is None else parse_policy(arguments.set)
    changes = policy is not None or arguments.clear
    with open_database(arguments, create=False, read_only=not changes) as db:
        if policy is not None:
            db.retention.set(policy, **place)
        elif arguments.clear and not db.retention.clear(**place):
            raise InvalidInput("there is no policy for exactly this", hint="strata retention PATH lists them")
        rules = db.retention.list()
    print(rules if rules else "everything is kept")
    return 0


def forget(arguments: Namespace) -> int:
    """Remove a key, or all that begin with it, for good; print what was removed."""
    what = f"all that begin with {arguments.key!r}" if arguments.prefix else repr(arguments.key)
    if not arguments.yes:
        raise InvalidInput(
            f"{what} would go from all versions and branches of {arguments.path}, for good",
            hint="say --yes to do it",
        )
    named = {"prefix": arguments.key} if arguments.prefix else {"key": arguments.key}
    space = None if arguments.all_spaces else arguments.space
    with open_database(arguments, create=False) as db:
        done = db.forget(arguments.primitive, **named, space=space)
    print(f"{what}: {done.versions_removed:,} versions removed, {done.reclaimed_bytes:,} bytes given back")
    return 0


def rotate_key(arguments: Namespace) -> int:
    """Encrypt all files with another key, or none of them any more; print which."""
    key = None if arguments.to_plain else Path(arguments.to)
    with open_database(arguments, create=False) as db:
        db.rotate_key(key, progress=_shown if sys.stderr.isatty() else None)
        key_id = db.info().key_id
    print(f"encrypted with key {key_id}" if key_id else "not encrypted")
    return 0


def parse_policy(text: str) -> Policy:
    """Return the policy that `text` writes: all, last=3, for=30d, and two of them with "or" or "and".

    Raises: InvalidInput when it is none.
    """
    words = text.split()
    if words == ["all"]:
        return KeepAll()
    if len(words) == 1:
        return _bound(text, words[0])
    if len(words) == 3 and words[1] in ("or", "and"):
        one, other = _bound(text, words[0]), _bound(text, words[2])
        return one | other if words[1] == "or" else one & other
    raise _no_policy(text)


def _bound(text: str, word: str) -> KeepLast | KeepFor:
    if match := re.fullmatch(r"last=(\d{1,18})", word):
        return KeepLast(int(match[1]))
    if match := re.fullmatch(r"for=(\d{1,12})([smhd])", word):
        return KeepFor(timedelta(**{_UNITS[match[2]]: int(match[1])}).total_seconds())
    raise _no_policy(text)


def _no_policy(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text!r} is no retention policy", hint="all, last=3, for=30d (s, m, h, d), or 'last=3 or for=30d'"
    )


def _shown(done: int, all_: int) -> None:
    if all_ >= _LARGE_ROWS:
        print(
            f"\r{100 * done // all_:3} % of {all_:,} rows", end="\n" if done >= all_ else "", file=sys.stderr
        )
