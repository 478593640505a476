"""rstmdb's backups: what is written is read again, and what others made is checked before it is believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rstmdb_logs import NOW, PUT, WHEN, apply, archive, create, entries, raw, records

from strata.api.rstmdb import Archive, archives, open_log, read_log, streams, write_archive
from strata.core.errors import AlreadyExists, Corrupt, InvalidInput, LimitExceeded, StorageError
from strata.core.values import same

SEGMENT = raw(PUT, 1) + raw(create("a"), 2)
FILES = {"snapshots/index.json": b"{}", "wal/0000000000000001.wal": SEGMENT,
         "wal/0000000000000002.wal": raw(apply("a"), 3)}  # fmt: skip
BOTH = pytest.mark.parametrize("compression", [0, 1])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.rstmbak"


def read(file, content=None, **options):
    if content is not None:
        file.write_bytes(content)
    log = open_log(file, **options)
    return [record.entry for record in read_log(log.segments(), **options)]


@given(drawn=st.lists(entries, max_size=8), compression=st.sampled_from(["none", "gzip"]))
def test_entries_come_back(tmp_path_factory, drawn, compression):
    file = tmp_path_factory.mktemp("b") / "x.rstmbak"
    made = write_archive(records(drawn), file, compression=compression, segment_bytes=300, **WHEN)
    log = open_log(file)
    assert log.manifest == made
    log.check()
    assert same([record.entry for record in read_log(log.segments())], drawn)
    assert sum(log.sizes.values()) == sum(file.size for file in made.files)
    assert [path.name for path in file.parent.iterdir()] == ["x.rstmbak"]  # nothing is left beside it


def test_the_manifest_is_what_rstmdb_wants(file):
    """All fields that it has no defaults for, and none of the others as null; times in UTC."""
    made = write_archive(records([PUT]), file, counts=lambda: (1, 0), compression="none", **WHEN)
    content = file.read_bytes()
    assert content[:9] == b"RSTMBAK\x01\0"
    with tarfile.open(fileobj=io.BytesIO(content[9:])) as tar:
        names = tar.getnames()
        said = json.loads(tar.extractfile("manifest.json").read())
        segment = tar.extractfile("wal/0000000000000001.wal").read()
    assert names == ["manifest.json", "wal/0000000000000001.wal"]
    digest = hashlib.sha256(segment).hexdigest()
    assert said == {
        "format_version": 1,
        "kind": "physical",
        "rstmdb_version": "0.3.0",
        "created_at": "2026-11-30T12:00:00Z",
        "compression": "none",
        "wal_head_offset": (1 << 40) + len(segment),
        "wal_head_sequence": 1,
        "segment_count": 1,
        "snapshot_count": 0,
        "machine_count": 1,
        "instance_count": 0,
        "payload_sha256": hashlib.sha256(digest.encode()).hexdigest(),
        "files": [{"path": "wal/0000000000000001.wal", "size": len(segment), "sha256": digest}],
    }
    assert made.payload_sha256 == said["payload_sha256"]


def test_the_same_log_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_archive(records([PUT, create("a")]), tmp_path / name, **WHEN)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_is_overwritten_or_left(file):
    with pytest.raises(InvalidInput):
        write_archive(records([PUT, {"type": "nonsense"}]), file, **WHEN)
    with pytest.raises(InvalidInput):
        write_archive([], file, created=NOW, writer="x", compression="zip")
    assert not list(file.parent.iterdir())
    file.write_bytes(b"precious")
    with pytest.raises(AlreadyExists):
        write_archive([], file, **WHEN)
    assert file.read_bytes() == b"precious"
    with pytest.raises(StorageError):
        write_archive([], file / "in" / "a file", **WHEN)


@BOTH
def test_what_rstmdb_wrote(file, compression):
    """Snapshots are checked, and not read."""
    assert read(file, archive(FILES, compression=compression)) == [PUT, create("a"), apply("a")]
    assert Archive(file).manifest.rstmdb_version == "0.3.0"


@BOTH
def test_every_bit_counts(file, compression):
    """Of an archive that is not packed, whichever byte is flipped: it is refused, or says the same."""
    whole = archive({"wal/0000000000000001.wal": raw(PUT, 1)}, compression=compression)
    step = 37 if compression else 97
    for at in range(0, len(whole), step):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        try:
            found = read(file, bytes(flipped))
        except (InvalidInput, Corrupt, LimitExceeded):
            continue
        assert found == [PUT], at


@BOTH
def test_cut_anywhere(file, compression):
    whole = archive(FILES, compression=compression)
    for size in range(0, len(whole), 61):
        try:
            found = read(file, whole[:size])
        except (InvalidInput, Corrupt):
            continue
        # Only zeros are missing, which tar has at its end.
        assert found == [PUT, create("a"), apply("a")] and not compression and not whole[size:].strip(b"\0")


def test_salvage_takes_what_is_whole(file):
    report = []

    def salvaged(content):
        report.clear()
        file.write_bytes(content)
        log = open_log(file, salvage=True, report=report.append)
        return [
            record.entry["type"] for record in read_log(log.segments(), salvage=True, report=report.append)
        ]

    everything = ["put_machine", "create_instance", "apply_event"]
    assert salvaged(archive(FILES)) == everything and not report
    whole = archive(FILES, compression=0)
    flipped = bytearray(whole)
    flipped[whole.index(b"created", 9 + 512 * 8)] ^= 1
    assert salvaged(bytes(flipped)) != everything and "SHA-256" in " ".join(map(str, report))
    assert salvaged(archive(FILES, manifest={"payload_sha256": "00"})) == everything and len(report) == 1
    members = {name: FILES[name] for name in list(FILES)[:2]}
    assert salvaged(archive(FILES, members=members)) == everything[:2] and "missing" in str(report[0])
    packed = archive(FILES)
    assert salvaged(packed[: len(packed) - 40])[:1] == everything[:1] and report
    for content in (archive(FILES, tail=b"x"), archive(FILES) + b"behind"):
        assert salvaged(content) == everything and report


def link(name, type_, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = type_, target
    return member


HOSTILE = {
    "a path out of it": {"wal/../../etc/passwd": b"x"},
    "an absolute path": {"/etc/passwd": b"x"},
    "another directory": {"bin/0000000000000001.wal": b"x"},
    "a directory below": {"wal/a/b": b"x"},
    "the directory": {"wal/": b""},
    "the parent": {"wal/..": b"x"},
    "another system's path": {"wal/..\\..\\x": b"x"},
    "no directory": {"0000000000000001.wal": b"x"},
    "the manifest again": {"manifest.json": b"{}"},
    "a long name": {"wal/" + "x" * 300: b"x"},
}


@BOTH
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_paths(file, what, compression):
    """Also where the manifest names them."""
    with pytest.raises(InvalidInput):
        read(file, archive(HOSTILE[what], compression=compression))
    with pytest.raises(InvalidInput):
        read(file, archive(FILES, members={**FILES, **HOSTILE[what]}, compression=compression))
    with pytest.raises(InvalidInput):
        read(file, archive(HOSTILE[what]), salvage=True)


@pytest.mark.parametrize(
    "type_",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
     tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE],
)  # fmt: skip
def test_what_is_no_plain_file(file, type_):
    name = "wal/0000000000000002.wal"
    for other in (name, "wal/x"):  # also under the name of a file that should be there
        member = link(other, type_, "/etc/passwd")
        member.size = len(FILES[name])
        with pytest.raises(InvalidInput):
            read(file, archive(FILES, members={**FILES, other: member}))


def sized(name, size):
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def test_files_that_the_manifest_does_not_name_so(file):
    name = "wal/0000000000000002.wal"
    for members in (
        {**FILES, "wal/0000000000000003.wal": SEGMENT},
        {**FILES, name: SEGMENT},  # of another size
    ):
        with pytest.raises(InvalidInput):
            read(file, archive(FILES, members=members))
    with pytest.raises(Corrupt):
        read(file, archive(FILES, members={**FILES, name: bytes(len(FILES[name]))}))
    with pytest.raises(Corrupt):
        read(file, archive(FILES, members={"snapshots/index.json": b"{}"}))
    twice = archive(FILES, compression=0)
    start = twice.index(b"wal/0000000000000002.wal", 9 + 512 + 2048)
    block = twice[start : start + 1024]
    with pytest.raises(InvalidInput):
        read(file, twice[: start + 1024] + block + twice[start + 1024 :])
    with pytest.raises(InvalidInput):  # segments in an order in which nothing can be read
        backwards = dict(reversed(FILES.items()))
        read(file, archive(backwards))


def test_bombs(file, monkeypatch):
    """What a header or a manifest promises is not read, and what is unpacked is counted."""
    huge = {"path": "wal/0000000000000001.wal", "size": 1 << 50, "sha256": "00"}
    with pytest.raises(LimitExceeded):
        read(file, archive(FILES, manifest={"files": [huge]}))
    with pytest.raises(LimitExceeded):
        read(
            file,
            archive(
                FILES, manifest={"files": [huge | {"size": 1, "path": f"wal/{n}"} for n in range(100_001)]}
            ),
        )
    with pytest.raises(InvalidInput):
        read(file, archive(FILES, manifest={"files": [huge | {"size": -1}]}))
    with pytest.raises(InvalidInput):
        read(file, archive(FILES, manifest={"files": [huge | {"size": 1}] * 2}))
    header = tarfile.TarInfo("manifest.json")
    header.size = 1 << 40
    with pytest.raises(LimitExceeded):
        read(file, b"RSTMBAK\x01\0" + header.tobuf(tarfile.GNU_FORMAT))
    monkeypatch.setattr(streams, "UNPACKED_BYTES_MAX", 1 << 20)
    zeros = {"wal/0000000000000001.wal": bytes(4 << 20)}
    with pytest.raises(LimitExceeded):
        read(file, archive(zeros))
    with pytest.raises((LimitExceeded, Corrupt)):
        read(file, archive(FILES, tail=bytes(4 << 20)))
    monkeypatch.setattr(archives, "UNPACKED_BYTES_MAX", 1 << 20)
    with pytest.raises(LimitExceeded) as caught:
        read(file, archive(zeros))
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RSTMBAK",
        b"RSTMBAK\x02\0",
        b"RSTMBAK\x01",
        b"RSTMBAK\x01\x02",
        b"RSTMBAK\x01\0",
        b"RSTMBAK\x01\1",
        b"RSTMBAK\x01\1" + gzip.compress(b"", mtime=0),
        b"RSTMBAK\x01\1" + b"not packed",
        b"RSTMBAK\x01\0" + bytes(1024),
        b"RSTMBAK\x01\0" + b"x" * 1024,
        archive(FILES)[1:],
        archive(FILES, manifest={"format_version": 2}),
        archive(FILES, manifest={"format_version": "1"}),
        archive(FILES, manifest={"files": [{"path": "wal/x"}]}),
        archive(FILES, manifest={"files": None}),
        archive(FILES, manifest={"payload_sha256": "00"}),
    ],
)
def test_what_is_no_archive(file, content):
    with pytest.raises((InvalidInput, Corrupt)):
        read(file, content)


@given(content=st.binary(max_size=600), compression=st.sampled_from([0, 1]))
def test_noise(tmp_path_factory, content, compression):
    file = tmp_path_factory.mktemp("b") / "x"
    with pytest.raises((InvalidInput, Corrupt)):
        read(file, b"RSTMBAK\x01" + bytes([compression]) + content)
