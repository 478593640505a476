"""Webhooks: what is committed, told to an HTTP address. Here they are declared; `strata.worker` delivers."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import convert
from msgspec.structs import replace

from strata.api.table import Table
from strata.api.webhooks_rows import (
    Dead,
    Hook,
    Lane,
    Progress,
    branch_of,
    home_of,
    hooks,
    make_home,
    prefixes,
    read,
    rows_of,
    scan,
    write,
)
from strata.core.atomic import atomically
from strata.core.clock import Duration, duration_micros
from strata.core.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound
from strata.core.ids import new_id
from strata.core.keys import check_int, check_name, check_text
from strata.core.protocols import Store, Txn
from strata.history.diff import Limits

_URL_BYTES_MAX: Final = 2048
_PORT_MAX: Final = 65_535
_KEY_BYTES: Final = 32
_KEY_BYTES_LEAST, _KEY_BYTES_MOST = 24, 64  # as Standard Webhooks has it
_SECRET: Final = "whsec_"
_HOOKS_MAX: Final = 100  # each has a thread of the worker
_DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A hook as it was declared. `secret` is there only when it was just made."""

    name: str
    url: str
    branch: str | None  # None once that was deleted
    paused: str | None  # why
    created: int
    space: str | None
    primitive: str | None
    prefix: str | None
    type: str | None
    machine: str | None
    events: tuple[str, ...] | None
    to_states: tuple[str, ...] | None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How far a hook is."""

    name: str
    position: int  # all that its branch committed up to this version was handled
    head: int  # of the branch
    delivered: int
    failed: int  # attempts
    waiting: int  # messages that are tried again, or wait behind one that is
    dead: int
    gaps: int  # times that history was let go of before it was delivered
    paused: str | None
    error: str | None  # of the newest attempt; None once one went well
    error_time: int | None
    delivered_time: int | None  # of the newest delivery
    retry_time: int | None  # when one is tried again


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up."""

    id: str  # its webhook-id
    version: int
    space: str
    primitive: str
    key: str
    type: str
    attempts: int
    error: str
    first_time: int  # when it was first tried
    time: int  # when it was given up
    body: str


class Webhooks:
    """The webhooks of a database. A worker delivers them: `strata serve` and `strata worker` run one.

    Each names a branch, and is told of what is committed there, from a position that survives crashes. They
    are kept in the database and go with backups, but are no part of the history of any branch.
    """

    __slots__ = ("_branch", "_store")

    def __init__(self, store: Store, branch: str) -> None:
        self._store = store
        self._branch = branch

    def add(
        self,
        name: str,
        url: str,
        *,
        secret: str | None = None,
        branch: str | None = None,
        primitive: str | None = None,
        space: str | None = None,
        prefix: str | None = None,
        type: str | None = None,
        machine: str | None = None,
        events: Iterable[str] | None = None,
        to_states: Iterable[str] | None = None,
        from_version: int | None = None,
    ) -> Webhook:
        """Declare a hook, and return it with the secret that its messages are signed with.

        Args:
            url: over https, or over http where whoever runs the worker allows that.
            secret: "whsec_" and 24 to 64 bytes in base64; made when left out. It is not shown again.
            branch: what is committed there; left out, on that of the handle. Not on forks of it.
            primitive, space, prefix, type: only such changes, as `watch` has them.
            machine: only instances of this machine.
            events, to_states: only transitions by one of these events, or into one of these states.
            from_version: begin after this version; left out, with what comes from now on.
        Raises: AlreadyExists; InvalidInput for what is no such URL, secret or filter; NotFound for a branch,
            and for a version that is yet to come; LimitExceeded.
        """
        native = self._store.branch(self._branch if branch is None else check_name(branch, "branch"))
        info = next(info for info in self._store.branches() if info.name == native.name)
        head = native.head
        if from_version is not None and check_int(from_version, "from_version") > head:
            raise NotFound(what="version", name=str(from_version), hint=f"the newest is {head}")
        rows = rows_of(make_home(self._store))
        hook = Hook(
            id=new_id(rows.now),
            name=check_name(name, "webhook"),
            url=check_url(url),
            secrets=[(_new_secret() if secret is None else _checked_secret(secret), None)],
            branch=info.id,
            branch_created=info.created,
            created=rows.now,
            **_filters(space, primitive, prefix, type, machine, events, to_states),
        )
        atomically(rows, lambda txn: _add(txn, hook, head if from_version is None else from_version))
        return self._shown(hook, hook.secrets[0][0])

    def get(self, name: str) -> Webhook:
        """Return a hook, without its secret.

        Raises: NotFound.
        """
        return self._shown(_hook(self._rows(name), name))

    def list(self) -> Table[Webhook]:
        """Return the hooks by name, without their secrets."""
        home = home_of(self._store)
        return Table() if home is None else Table(map(self._shown, hooks(rows_of(home))))

    def status(self, name: str) -> WebhookStatus:
        """Return how far a hook is, and what went wrong last.

        Raises: NotFound.
        """

        rows = self._rows(name).pinned()
        hook = _hook(rows, name)
        at = read(rows, f"at/{hook.id}", Progress)
        assert at is not None, "it comes and goes with its hook"
        lanes = [lane for _, lane in scan(rows, f"lane/{hook.id}/", Lane)]
        waiting, dead = (rows.count(f"{kind}/{hook.id}/", None, None) for kind in ("message", "dead"))
        due = max(min((lane.due for lane in lanes), default=0), at.not_before)
        branch = branch_of(self._store, hook)
        return WebhookStatus(
            name=name,
            position=at.position,
            head=at.position if branch is None else branch.head,
            delivered=at.delivered,
            failed=at.failed,
            waiting=waiting,
            dead=dead,
            gaps=at.gaps,
            paused=hook.paused,
            error=at.error,
            error_time=at.error_at,
            delivered_time=at.delivered_at,
            retry_time=due or None,
        )

    def remove(self, name: str) -> bool:
        """Take a hook back, with what waits and what is dead of it; return whether there was one."""

        def remove(txn: Txn) -> bool:
            hook = read(txn, f"hook/{name}", Hook)
            if hook is None:
                return False
            for prefix in prefixes(hook):
                txn.delete_many(txn.scan_keys(prefix, None, None, False, None))
            txn.delete(f"hook/{name}")
            return True

        check_name(name, "webhook")
        home = home_of(self._store)
        return home is not None and atomically(rows_of(home), remove)[0]

    def pause(self, name: str, reason: str = "paused") -> None:
        """Send nothing more, until `resume`. What is committed meanwhile is told then, from the log.

        Raises: NotFound.
        """
        self._change(name, paused=check_text(reason, "reason"))

    def resume(self, name: str) -> None:
        """Go on where the hook was paused, also where an answer of 410 did that. What waits is due at once.

        Raises: NotFound.
        """

        def resume(txn: Txn) -> None:
            hook = _hook(txn, name)
            write(txn, f"hook/{name}", replace(hook, paused=None))
            _make_due(txn, hook)

        atomically(self._rows(name), resume)

    def rotate(self, name: str, *, secret: str | None = None, keep_old: Duration = _DAY_S) -> Webhook:
        """Give a hook another secret, and return it with that. Messages carry both signatures for a while.

        Args:
            secret: as in `add`.
            keep_old: for how long the old secret signs as well, in seconds or as a timedelta.
        Raises: NotFound; InvalidInput.
        """
        made = _new_secret() if secret is None else _checked_secret(secret)
        kept_us = duration_micros(keep_old, "how long to keep a secret", "as in keep_old=3600")

        def rotate(txn: Txn) -> Hook:
            hook = _hook(txn, name)
            until = txn.now + kept_us
            old = [(secret, until if end is None else end) for secret, end in hook.secrets]
            old = [(secret, end) for secret, end in old if end > txn.now]
            found = replace(hook, secrets=[(made, None), *old])
            write(txn, f"hook/{name}", found)
            return found

        return self._shown(atomically(self._rows(name), rotate)[0], made)

    def dead(self, name: str, *, after: int | None = None, limit: int = 100) -> Table[DeadLetter]:
        """Return the messages of a hook that were given up, oldest commit first.

        Args:
            after: only those of commits after this version.
        Raises: NotFound.
        """
        check_int(limit, "limit")
        start = 0 if after is None else check_int(after, "after") + 1

        rows = self._rows(name)
        hook = _hook(rows, name)
        first = f"dead/{hook.id}/{start:016x}"
        found = rows.scan(f"dead/{hook.id}/", first, None, False, limit)
        return Table(_letter(convert(row, Dead)) for _, row in found)

    def retry(self, name: str, id: str | None = None) -> int:
        """Send dead letters again, one by its id or all; return how many. Each counts as never tried.

        What came later of the same thing may have been delivered meanwhile: it comes again, with its own id.
        Raises: NotFound.
        """

        def retry(txn: Txn) -> int:
            hook = _hook(txn, name)
            found = _dead(txn, hook, id)
            for key, row in found:
                message = row.message
                write(txn, f"message/{hook.id}/{message.place}", message)
                write(txn, f"lane/{hook.id}/{message.lane}", Lane())
                txn.delete(key)
            return len(found)

        return atomically(self._rows(name), retry)[0]

    def discard(self, name: str, id: str | None = None) -> int:
        """Let go of dead letters, one by its id or all; return how many.

        Raises: NotFound.
        """

        def discard(txn: Txn) -> int:
            found = _dead(txn, _hook(txn, name), id)
            txn.delete_many([key for key, _ in found])
            return len(found)

        return atomically(self._rows(name), discard)[0]

    def _change(self, name: str, **fields: Any) -> None:
        def change(txn: Txn) -> None:
            write(txn, f"hook/{name}", replace(_hook(txn, name), **fields))

        atomically(self._rows(name), change)

    def _rows(self, name: str) -> Txn:
        """Return the rows, where there are hooks at all. Raises: NotFound, for the hook `name`, where not."""
        check_name(name, "webhook")
        home = home_of(self._store)
        if home is None:
            raise NotFound(what="webhook", name=name)
        return rows_of(home)

    def _shown(self, hook: Hook, secret: str | None = None) -> Webhook:
        branch = branch_of(self._store, hook)
        return Webhook(
            hook.name,
            hook.url,
            None if branch is None else branch.name,
            hook.paused,
            hook.created,
            hook.space,
            hook.primitive,
            hook.prefix,
            hook.type,
            hook.machine,
            None if hook.events is None else tuple(hook.events),
            None if hook.to_states is None else tuple(hook.to_states),
            secret,
        )

    def __repr__(self) -> str:
        return f"<Webhooks {len(self.list())}>"

    def _repr_html_(self) -> str:
        return self.list()._repr_html_()


def check_url(url: Any) -> str:
    """Return `url` if a message could be sent there. Whether it may is for whoever runs the worker to say.

    Raises: InvalidInput; LimitExceeded.
    """
    hint = "as in https://example.com/hooks"
    if type(url) is not str or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("a URL is printable ASCII without spaces", hint=hint)
    if len(url) > _URL_BYTES_MAX:
        raise LimitExceeded(what="length of the URL", limit=_URL_BYTES_MAX, actual=len(url))
    try:
        parts = urlsplit(url)
        is_port = parts.port is None or 0 < parts.port <= _PORT_MAX
    except ValueError as error:
        raise InvalidInput(f"this is no URL: {error}", hint=hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_port:
        raise InvalidInput("a URL has https:// or http://, and a host", hint=hint)
    if "@" in parts.netloc or parts.fragment:
        raise InvalidInput("a URL has no user and no fragment", hint="messages are signed: check that")
    return url


def key_of(secret: str) -> bytes:
    """Return the bytes that a secret stands for."""
    return base64.b64decode(secret.removeprefix(_SECRET), validate=True)


def _new_secret() -> str:
    return _SECRET + base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def _checked_secret(secret: Any) -> str:
    hint = f"{_SECRET!r} and {_KEY_BYTES_LEAST} to {_KEY_BYTES_MOST} bytes in base64; left out, one is made"
    try:
        key = key_of(secret)
    except (AttributeError, TypeError, ValueError, binascii.Error):
        key = b""
    if not _KEY_BYTES_LEAST <= len(key) <= _KEY_BYTES_MOST or not secret.startswith(_SECRET):
        raise InvalidInput("this is no secret of a webhook", hint=hint)
    return str(secret)


def _filters(
    space: str | None,
    primitive: str | None,
    prefix: str | None,
    type: str | None,
    machine: str | None,
    events: Iterable[str] | None,
    to_states: Iterable[str] | None,
) -> dict[str, Any]:
    """Return which changes a hook is of, checked."""
    owners: dict[str, tuple[str, Any]] = {
        "type": ("events", type),
        "machine": ("machines", machine),
        "events": ("machines", events),
        "to_states": ("machines", to_states),
    }
    for what, (owner, value) in owners.items():
        if value is not None and primitive not in (None, owner):
            raise InvalidInput(f"{what} is of {owner}, and {primitive} has none")
        primitive = owner if value is not None else primitive
    Limits(space, primitive, prefix)
    return {
        "space": space,
        "primitive": primitive,
        "prefix": prefix,
        "type": None if type is None else check_name(type, "event type"),
        "machine": None if machine is None else check_name(machine, "machine", reserved=True),
        "events": _names(events, "event"),
        "to_states": _names(to_states, "state"),
    }


def _names(names: Any, what: str) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput(f"{what}s are a list of names, not {names!r}")
    found = [check_name(name, what, reserved=True) for name in names]
    if not found:
        raise InvalidInput(f"no {what} would be told of", hint="leave it out for all")
    return found


def _add(txn: Txn, hook: Hook, position: int) -> None:
    if txn.contains(f"hook/{hook.name}"):
        raise AlreadyExists(what="webhook", name=hook.name)
    count = txn.count("hook/", None, None)
    if count >= _HOOKS_MAX:
        raise LimitExceeded(what="webhooks", limit=_HOOKS_MAX, actual=count + 1)
    write(txn, f"hook/{hook.name}", hook)
    write(txn, f"at/{hook.id}", Progress(position))


def _hook(txn: Txn, name: str) -> Hook:
    found = read(txn, f"hook/{name}", Hook)
    if found is None:
        raise NotFound(what="webhook", name=name)
    return found


def _make_due(txn: Txn, hook: Hook) -> None:
    """Let nothing of a hook wait for its time any longer."""
    prefix = f"lane/{hook.id}/"
    for lane, row in scan(txn, prefix, Lane):
        write(txn, prefix + lane, replace(row, due=0))
    at = read(txn, f"at/{hook.id}", Progress)
    if at is not None:
        write(txn, f"at/{hook.id}", replace(at, not_before=0))


def _dead(txn: Txn, hook: Hook, id: str | None) -> list[tuple[str, Dead]]:
    """Return the keys and rows of dead letters: of one, or of all."""
    prefix = f"dead/{hook.id}/"
    found = [(prefix + key, row) for key, row in scan(txn, prefix, Dead)]
    if id is None:
        return found
    found = [(key, row) for key, row in found if row.message.id == id]
    if not found:
        raise NotFound(what="dead letter", name=str(id))
    return found


def _letter(row: Dead) -> DeadLetter:
    message = row.message
    return DeadLetter(
        message.id,
        message.version,
        message.space,
        message.primitive,
        message.key,
        message.type,
        row.attempts,
        row.error,
        row.since,
        row.died,
        message.body.decode(),
    )
