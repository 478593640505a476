"""rstmdb's log: what is written is read again, a torn tail is passed, and damage is named."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rstmdb_logs import PUT, apply, create, entries, raw, records

from strata.api.rstmdb import Directory, open_log, read_log, write_segments
from strata.api.rstmdb import records as rstmdb_records
from strata.api.rstmdb.records import offset_of, place_of, segment_name
from strata.core.errors import Corrupt, InvalidInput, LimitExceeded, NotFound, StorageError
from strata.core.values import same

LOG = [
    raw(PUT, 1),
    raw(create("a"), 2),
    raw(apply("a"), 3),
    raw({"type": "delete_instance", "instance_id": "a"}, 4),
]


class Bytes(io.BytesIO):
    """Gives a few bytes at a time, as files may."""

    def __init__(self, content, size=7):
        super().__init__(content)
        self._size_of_read = size

    def read(self, size=-1):
        return super().read(min(size, self._size_of_read))


def read(*segments, first=1, **options):
    """Records and damage of segments."""
    damage = []
    found = list(read_log([(first + number, Bytes(content)) for number, content in enumerate(segments)],
                          report=damage.append, **options))  # fmt: skip
    return [record.entry for record in found], damage


@given(drawn=st.lists(entries, max_size=12), segment_bytes=st.integers(1, 900))
def test_entries_come_back(tmp_path_factory, drawn, segment_bytes):
    """Whatever the entries, and wherever segments end."""
    directory = tmp_path_factory.mktemp("data")
    written = write_segments(records(drawn), directory, segment_bytes=segment_bytes)
    log = open_log(directory)
    found = list(read_log(log.segments()))
    assert same([record.entry for record in found], drawn)
    assert [record.sequence for record in found] == list(range(1, len(drawn) + 1))
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets)) and (not offsets or offsets[0] == 1 << 40)
    assert written.head_offset > max(offsets, default=0) and written.head_sequence == len(drawn)
    assert written.records == len(drawn) and sum(log.sizes.values()) == sum(
        file.size for file in written.files
    )
    for record in found:  # the offset says where it lies
        file, at = place_of(record.offset)
        assert (directory / file).read_bytes()[at : at + 4] == b"WLOG"
    sizes = [file.size for file in written.files]
    assert all(
        size <= segment_bytes or size == sizes_of(found, number) for number, size in enumerate(sizes, 1)
    )


def sizes_of(found, segment):
    """The size of a segment that has one record only, which may be larger than a segment."""
    inside = [record for record in found if record.offset >> 40 == segment]
    return len(rstmdb_records.encode(inside[0].sequence, inside[0].entry)) if len(inside) == 1 else None


def test_a_segment_may_be_full_to_the_last_byte(tmp_path):
    """The next one begins only when a record does not fit."""
    size = len(rstmdb_records.encode(1, create("a")))
    for segment_bytes, segments in [(3 * size, 1), (3 * size - 1, 2), (2 * size, 2), (size, 3), (1, 3)]:
        path = tmp_path / str(segment_bytes)
        log = write_segments(records([create("a")] * 3), path, segment_bytes=segment_bytes)
        assert len(log.files) == segments


def test_the_bytes_are_those_of_rstmdb(tmp_path):
    """Made here field by field: big-endian, the CRC32C of the payload, the type twice."""
    entry = {"type": "delete_instance", "instance_id": "é"}
    write_segments(records([entry]), tmp_path)
    payload = '{"type":"delete_instance","instance_id":"é"}'.encode()
    content = (tmp_path / "wal" / "0000000000000001.wal").read_bytes()
    assert content == raw(entry, 1, payload=payload)
    assert content[:12] == b"WLOG\x04\x00\x00\x00" + len(payload).to_bytes(4, "big")


def test_a_log_may_begin_late_and_in_the_middle_of_nothing():
    """Compaction there removes old segments."""
    assert read(LOG[2], LOG[3], first=7) == (
        [apply("a"), {"type": "delete_instance", "instance_id": "a"}],
        [],
    )
    assert read(b"", b"") == ([], [])


@pytest.mark.parametrize("cut", range(len(LOG[3])))
def test_a_tail_cut_anywhere(cut):
    content = b"".join(LOG[:3]) + LOG[3][:cut]
    found, damage = read(content)
    assert [entry["type"] for entry in found] == ["put_machine", "create_instance", "apply_event"]
    start = len(content) - cut
    assert [(d.offset, d.length, d.is_tail) for d in damage] == (
        [(offset_of(1, start), cut, True)] if cut else []
    )
    assert all("torn tail" in str(d) for d in damage)


@pytest.mark.parametrize("at", range(0, len(LOG[3]), 3))
@pytest.mark.parametrize("bit", [0, 7])
def test_a_bit_flipped_in_the_last_record(at, bit):
    """It is a tail that the crash tore, or a record as good as before: the header has no checksum."""
    torn = bytearray(LOG[3])
    torn[at] ^= 1 << bit
    found, damage = read(b"".join(LOG[:3]) + torn)
    assert len(found) == 3 + (5 <= at < 8 or 16 <= at < 24)  # flags, reserved, sequence
    assert [d.is_tail for d in damage] == [True] * (4 - len(found))


@pytest.mark.parametrize("at", [*range(5), *range(8, 16), *range(24, len(LOG[1]), 5)])
def test_a_bit_flipped_in_the_middle(at):
    torn = bytearray(LOG[1])
    torn[at] ^= 1
    content = LOG[0] + torn + LOG[2] + LOG[3]
    with pytest.raises(Corrupt) as caught:
        read(content)
    assert (caught.value.file, caught.value.offset) == (f"wal/{segment_name(1)}", len(LOG[0]))
    assert caught.value.hint
    found, damage = read(content, salvage=True)
    assert [entry["type"] for entry in found] == ["put_machine", "apply_event", "delete_instance"]
    assert [(d.offset, d.length, d.is_tail) for d in damage] == [
        (offset_of(1, len(LOG[0])), len(torn), False)
    ]


def test_a_tail_that_something_was_written_behind():
    """rstmdb leaves a torn tail where it is: appends go behind it, and its next start fails."""
    content = LOG[0] + LOG[1][:30] + LOG[2]
    with pytest.raises(Corrupt):
        read(content)
    assert [entry["type"] for entry in read(content, salvage=True)[0]] == ["put_machine", "apply_event"]
    with pytest.raises(Corrupt):  # the next record did not fit, and began a segment
        read(LOG[0] + LOG[1][:30], LOG[2])
    found, damage = read(LOG[0] + LOG[1][:30], b"")
    assert len(found) == 1 and damage[0].is_tail  # a segment that was just begun is nothing


@given(noise=st.binary(max_size=60) | st.just(b"WLOG" * 9) | st.just(b"\0" * 64), at=st.integers(0, 4))
def test_noise_between_records(noise, at):
    content = b"".join([*LOG[:at], noise, *LOG[at:]])
    found, damage = read(content, salvage=True)
    assert [entry["type"] for entry in found] == [json.loads(data[24:])["type"] for data in LOG]
    assert sum(d.length for d in damage) == len(noise)


@given(content=st.binary(max_size=200))
def test_noise_is_no_log(content):
    found, damage = read(content, salvage=True)
    assert not found and sum(d.length for d in damage) == len(content)


@pytest.mark.parametrize(
    "data",
    [
        raw(create("a"), magic=b"WLOF"),
        raw(create("a"), kind=3),  # it says to be something else
        raw(create("a"), kind=9),
        raw(create("a"), payload=b"{"),
        raw(create("a"), payload=b"[1]"),
        raw(create("a"), payload=b'{"type":5}'),
        raw(create("a"), payload=b"\xff"),
        raw(create("a"), payload=b'{"type":"create_instance","a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        raw(create("a"), payload=b'{"type":"create_instance","a":NaN}'),
    ],
)
def test_what_is_no_record(data):
    with pytest.raises(Corrupt):
        read(LOG[0] + data + LOG[2])
    assert len(read(LOG[0] + data + LOG[2], salvage=True)[0]) == 2


def test_lengths_that_lie():
    """A header that promises more than there is, or than there can be, costs nothing."""
    for length in (0, 1, 2**24, 2**24 + 1, 2**32 - 1):
        lying = bytearray(LOG[1])
        lying[8:12] = length.to_bytes(4, "big")
        with pytest.raises(Corrupt):
            read(LOG[0] + lying + LOG[2])
        assert len(read(LOG[0] + lying + LOG[2], salvage=True)[0]) == 2


def test_a_search_for_records_ends(monkeypatch):
    """Bytes made so that each next one begins a record of megabytes: the search gives up in the end."""
    monkeypatch.setattr(rstmdb_records, "_TRIED_BYTES_MAX", 10_000)
    header = raw(create("a"), payload=b"")[:8] + (1000).to_bytes(4, "big") + b"\1" * 12
    hostile = header * 100
    found, damage = read(LOG[0] + hostile + LOG[2], salvage=True)
    assert len(found) == 1 and sum(d.length for d in damage) == len(hostile) + len(LOG[2])


def test_a_segment_is_missing():
    with pytest.raises(Corrupt) as caught:
        list(read_log([(1, Bytes(LOG[0])), (3, Bytes(LOG[1]))]))
    assert caught.value.file == f"wal/{segment_name(2)}"
    damage = []
    found = list(read_log([(1, Bytes(LOG[0])), (4, Bytes(LOG[1]))], salvage=True, report=damage.append))
    assert len(found) == 2 and damage[0].offset == offset_of(2, 0) and "2 segments" in str(damage[0])
    with pytest.raises(InvalidInput):
        list(read_log([(2, Bytes(LOG[0])), (2, Bytes(LOG[1]))]))


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "unheard of"},
        {"type": ["noop"]},
        {},
        create("a", initial_ctx={"b": b"bytes"}),
        create("a", initial_ctx={"x": float("inf")}),
        create("a", initial_ctx={"x": "\ud800"}),
    ],
)
def test_what_cannot_be_written(tmp_path, entry):
    with pytest.raises(InvalidInput):
        write_segments(records([PUT, entry]), tmp_path)


def test_a_record_is_not_larger_than_rstmdb_takes(tmp_path):
    with pytest.raises(LimitExceeded):
        write_segments(records([create("a", initial_ctx={"x": "x" * (16 << 20)})]), tmp_path)


def test_directories(tmp_path):
    with pytest.raises(NotFound):
        open_log(tmp_path / "none")
    with pytest.raises(InvalidInput):
        open_log(tmp_path)
    write_segments(records([PUT]), tmp_path)
    (tmp_path / "snapshots").mkdir()
    for name in ("index.json", "0000000000000002.wal.tmp", "2.wal", "000000000000000G.wal"):
        (tmp_path / "wal" / name).write_bytes(b"what else lies there")
    for path in (tmp_path, tmp_path / "wal"):
        assert len(list(read_log(open_log(path).segments()))) == 1
    log = Directory(tmp_path)
    (tmp_path / "wal" / segment_name(1)).unlink()  # compaction ran meanwhile
    with pytest.raises(StorageError):
        list(read_log(log.segments()))
    (tmp_path / "wal" / segment_name(2**50)).write_bytes(LOG[0])
    with pytest.raises(InvalidInput):
        Directory(tmp_path)
