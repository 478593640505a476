"""Import: what a log of rstmdb says becomes machines and instances, a thousand entries a commit.

The state cell `rstmdb import` says how far a space has come: it is written in the commit that brought the
entries, so that an import which is run again, after a crash or for what was logged since, begins behind them.
It names the last record and a digest of all that stand before it in its segment, since another log may well
have a record at the same offset.

What the log says is taken, as rstmdb itself takes it when it starts, and not tried again: see
`primitives/machines_adoption`. What cannot be taken ends the import, or is left out and listed. A deletion
has no room for what came before it in its commit, so it begins a new one; so does a creation of what the
commit has deleted.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from strata.api.rstmdb import Archive, Damage, Directory, Entry, Record, open_log, read_log
from strata.api.rstmdb.reading import (
    Application,
    Creation,
    Definition,
    Snapshot,
    What,
    context_of,
    definition_of,
    event_id_of,
    payload_of,
    read_entry,
)
from strata.api.rstmdb.records import place_of, segment_of
from strata.core.errors import (
    AlreadyExists,
    InvalidInput,
    LimitExceeded,
    NotFound,
    UnexpectedState,
)
from strata.primitives.machines_adoption import Adoption

if TYPE_CHECKING:
    from strata.api.place import Place
    from strata.api.transaction import Transaction

Progress = Callable[[int, int], object]  # bytes of the log that are done, of how many

CELL: Final = "rstmdb import"
ACTOR: Final = "rstmdb import"
_BATCH: Final = 1000
_BATCH_BYTES: Final = 4 << 20
_LISTED: Final = 100  # of what was left out
_PLACE: Final = struct.Struct(">QQI")  # offset, sequence, checksum
_REFUSALS: Final = (InvalidInput, LimitExceeded, AlreadyExists, NotFound, UnexpectedState)


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry that was left out."""

    offset: int
    type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{_placed(self.offset)}: {self.type} {self.name!r}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LogDamage:
    """A stretch of the log that could not be read."""

    file: str
    at: int
    """Which byte of it."""
    length: int
    """0 where it is not known."""
    reason: str
    is_tail: bool
    """Whether nothing comes after it, as a crash leaves it: what it was going to be was not confirmed."""

    def __str__(self) -> str:
        return str(Damage(self.at, self.length, self.reason, self.is_tail, self.file))


@dataclass(frozen=True, slots=True)
class RstmdbImport:
    """What an import did."""

    machines: int = 0
    """Versions of machines that were defined."""
    instances: int = 0
    """That were made."""
    transitions: int = 0
    deletions: int = 0
    skipped: int = 0
    """Entries that earlier imports have taken."""
    irregular: int = 0
    """Of the transitions and creations, those that the definition would not have made. They were taken."""
    mended: int = 0
    """Entries of which something was read otherwise than it stands there: a null context is an empty one."""
    orphans: int = 0
    """Events and deletions of instances that are not here, as where compaction removed what made them. They
    were left out, as rstmdb does when it starts."""
    refused: int = 0
    """Entries that were left out since they cannot be kept here; with `salvage` only."""
    first_refused: tuple[RefusedEntry, ...] = ()
    """The first hundred of these."""
    damage: tuple[LogDamage, ...] = ()
    """What of the log could not be read: a torn tail, and with `salvage` all else."""
    offset: int = 0
    """Of the last entry that was taken, by this import or an earlier one; 0 before the first."""
    version: int = 0
    """Of the newest commit."""

    @property
    def is_whole(self) -> bool:
        """Whether everything in the log is here, but for orphans and a torn tail."""
        return not self.refused and all(damage.is_tail for damage in self.damage)


class _Mark(msgspec.Struct, frozen=True):
    """How far a space has come."""

    offset: int
    sequence: int
    digest: str  # of the records of its segment up to there
    entries: int  # that were taken, in all


@dataclass
class _Tally:
    """What was done, by the names in `RstmdbImport`."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedEntry] = field(default_factory=list)

    def add(self, other: _Tally) -> None:
        self.counts += other.counts
        self.refused += other.refused[: _LISTED - len(self.refused)]


def import_log(place: Place, path: Path, salvage: bool, progress: Progress | None) -> RstmdbImport:
    """Take the log at `path` into a place."""
    damage: list[Damage] = []
    log = open_log(path, salvage=salvage, report=damage.append)
    if isinstance(log, Archive) and not salvage:
        log.check()  # before anything is written, rather than behind it
    return _Import(place, log, damage, salvage).run(progress)


class _Import:
    """One run of an import."""

    def __init__(self, place: Place, log: Archive | Directory, damage: list[Damage], salvage: bool) -> None:
        self._place, self._log, self._damage, self._salvage = place, log, damage, salvage
        self._cell = _cell_of(place)
        self._mark = None if self._cell is None else _mark_of(self._cell)
        if self._mark is not None and not place.machines.definitions():
            self._mark = None  # what was imported has been cleared away
        self._digest = _Digest()
        self._tally = _Tally()

    def run(self, progress: Progress | None) -> RstmdbImport:
        skipped = 0 if self._mark is None else self._mark.entries
        sizes = self._log.sizes
        whole = sum(sizes.values())
        for batch in _batches(self._new_records()):
            self._take(batch)
            if progress is not None:
                progress(_bytes_up_to(sizes, batch[-1].offset), whole)
        if progress is not None:
            progress(whole, whole)
        return RstmdbImport(
            **self._tally.counts,
            skipped=skipped,
            first_refused=tuple(self._tally.refused),
            damage=tuple(
                LogDamage(*found.place, found.length, found.reason, found.is_tail) for found in self._damage
            ),
            offset=0 if self._mark is None else self._mark.offset,
            version=self._place.version,
        )

    def _new_records(self) -> Iterator[Record]:
        """Yield the records behind the mark, once its own record was seen."""
        mark = self._mark
        first = 0 if mark is None else segment_of(mark.offset)
        segments = ((id, stream) for id, stream in self._log.segments() if id >= first)
        is_known = mark is None
        for record in read_log(segments, salvage=self._salvage, report=self._damage.append):
            if mark is not None and record.offset <= mark.offset:
                said = record.sequence, self._digest.take(record)
                if record.offset == mark.offset:
                    is_known = said == (mark.sequence, mark.digest)
                continue
            if not is_known:
                break
            yield record
        if not is_known:
            self._refuse_log()

    def _refuse_log(self) -> NoReturn:
        assert self._mark is not None
        raise InvalidInput(
            f"an import into space {self._place._space!r} went up to {_placed(self._mark.offset)},"
            " and this log has another record there, or none",
            hint="it is another log, or has lost its beginning: import it into another space",
        )

    def _take(self, batch: list[Record]) -> None:
        """Commit what some records say."""
        digests = [self._digest.take(record) for record in batch]
        entries = len(batch) + (0 if self._mark is None else self._mark.entries)
        mark = _Mark(batch[-1].offset, batch[-1].sequence, digests[-1], entries)
        try:
            tally = self._commit(batch, mark, careful=False)
        except _Unwritable:  # to find out which entry it is, and the first one if there are several
            tally = self._commit(batch, mark, careful=True)
        self._mark, self._cell = mark, msgspec.to_builtins(mark)
        self._tally.add(tally)

    def _commit(self, batch: list[Record], mark: _Mark, *, careful: bool) -> _Tally:
        def body(tx: Transaction) -> _Tally:
            if _cell_of(tx) != self._cell:
                raise InvalidInput(f"another import into space {self._place._space!r} is under way")
            adoption = Adoption(tx.machines._txn, force=self._salvage, careful=careful)
            tally = _Tally()
            try:
                for record in batch:
                    self._entry(record, tx, adoption, tally)
                adoption.write()
            except _REFUSALS as error:
                if careful:
                    raise
                raise _Unwritable from error
            tx.state.set(CELL, msgspec.to_builtins(mark))
            return tally

        said = f"{len(batch)} entries of rstmdb up to offset {mark.offset}"
        return self._place.transact(body, message=said, actor=ACTOR)

    def _entry(self, record: Record, tx: Transaction, adoption: Adoption, tally: _Tally) -> None:
        """Take one entry in, or say why not.

        Raises: InvalidInput where that is not let pass.
        """
        entry = record.entry
        try:
            what = read_entry(entry)
            if what is not None:
                tally.counts.update(_taken(what, tx, adoption))
        except _REFUSALS as error:
            if isinstance(error, NotFound) and error.what == "instance":
                tally.counts["orphans"] += 1
                return
            found = RefusedEntry(record.offset, entry["type"], _name_of(entry), error.message)
            if not self._salvage:
                hints = [error.hint, "salvage=True (--salvage) leaves out what cannot be kept, and lists it"]
                raise InvalidInput(str(found), hint="; ".join(filter(None, hints))) from error
            tally.counts["refused"] += 1
            tally.refused.append(found)


class _Unwritable(Exception):
    """Something in a batch cannot be written."""


class _Digest:
    """Of the records of a segment, one after the other."""

    def __init__(self) -> None:
        self._segment = -1
        self._digest = b""

    def take(self, record: Record) -> str:
        """Return the digest up to a record."""
        if segment_of(record.offset) != self._segment:
            self._segment, self._digest = segment_of(record.offset), b""
        place = _PLACE.pack(record.offset, record.sequence, record.checksum)
        self._digest = hashlib.sha256(self._digest + place).digest()
        return self._digest.hex()


def _taken(what: What, tx: Transaction, adoption: Adoption) -> list[str]:
    """Take in what an entry says; return what is to be counted."""
    if isinstance(what, Definition):
        definition, is_mended = definition_of(what)
        made = tx.machines.define(what.machine, what.version, definition)
        return ["machines"] * made.is_new + ["mended"] * is_mended
    if isinstance(what, Creation):
        context, is_mended = context_of(what.initial_ctx)
        id, machine, version, state = what.instance_id, what.machine, what.version, what.initial_state
        is_regular = adoption.create(id, machine, version, state, context)
        return ["instances", *["mended"] * is_mended, *["irregular"] * (not is_regular)]
    if isinstance(what, Application):
        context, is_mended = context_of(what.ctx)
        payload, is_other = payload_of(what.payload)
        event_id, is_left_out = event_id_of(what.event_id)
        is_regular = adoption.apply(
            what.instance_id, what.event, what.from_state, what.to_state, payload, context, event_id
        )
        is_mended |= is_other or is_left_out
        return ["transitions", *["mended"] * is_mended, *["irregular"] * (not is_regular)]
    if isinstance(what, Snapshot):
        context, is_mended = context_of(what.ctx)
        is_other = adoption.become(what.instance_id, what.state, context, what.version)
        return ["transitions", "irregular", *["mended"] * is_mended] if is_other else []
    adoption.delete(what.instance_id)
    return ["deletions"]


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Yield records, as many as become one commit."""
    batch: list[Record] = []
    ids: set[str] = set()
    for record in records:
        type_, id = record.entry["type"], record.entry.get("instance_id")
        is_known = isinstance(id, str) and id in ids
        if batch and (
            len(batch) >= _BATCH
            or record.offset - batch[0].offset > _BATCH_BYTES
            or (is_known and type_ in ("create_instance", "delete_instance"))
        ):
            yield batch
            batch, ids = [], set()
        batch.append(record)
        if isinstance(id, str):
            ids.add(id)
    if batch:
        yield batch


def _cell_of(at: Place | Transaction) -> Any:
    """Return what stands of the last import; None where there was none."""
    try:
        return at.state.get(CELL)
    except NotFound:  # the space begins with this import
        return None


def _mark_of(cell: Any) -> _Mark:
    try:
        return msgspec.convert(cell, _Mark)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"the state cell {CELL!r} does not say how far an import came: {error}",
            hint="an import writes it; delete it to import all again",
        ) from None


def _name_of(entry: Entry) -> str:
    return str(entry.get("instance_id", f"{entry.get('machine')}/{entry.get('version')}"))


def _placed(offset: int) -> str:
    file, at = place_of(offset)
    return f"{file} byte {at:,} (offset {offset})"


def _bytes_up_to(sizes: dict[int, int], offset: int) -> int:
    """Return how many bytes of the log lie before an offset."""
    segment = segment_of(offset)
    return sum(size for id, size in sizes.items() if id < segment) + place_of(offset)[1]
