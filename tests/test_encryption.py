"""Encryption at rest, through the public face: nothing shows, and what is no key touches nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strata
from strata.errors import InvalidInput, NeedsKey
from strata.testing import SimDisk

KEY = bytes(range(32))
NEWER = bytes(range(7, 39))
CANARY = "canary-8"


def fill(db: strata.Database) -> None:
    """Put the canary wherever a user can put text."""
    for number in range(30):
        db.kv.put(f"{CANARY}/{number}", {CANARY: [CANARY]})
    db.state.set(CANARY, CANARY)
    db.json.set(CANARY, "$", {CANARY: CANARY})
    db.events.append(CANARY, {"said": CANARY}, stream=CANARY)
    db.branches.fork("main", CANARY)
    db.space(CANARY).kv.put("key", 1)
    with db.transaction(message=CANARY, actor=CANARY, idempotency_key=CANARY) as transaction:
        transaction.kv.put("key", CANARY)


def shows(path: Path) -> list[str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    return [file.name for file in files if CANARY.encode() in file.read_bytes()]


def test_nothing_shows_open_or_closed(tmp_path: Path) -> None:
    for key in (None, KEY):
        path = tmp_path / f"{key is None}.strata"
        with strata.open(path, key=key) as db:
            assert (db.info().encrypted, db.info().key_id is None) == (key is not None, key is None)
            fill(db)
            db.flush()
            states = [shows(path)]
            db.checkpoint()
            states.append(shows(path))
            db.kv.put(CANARY, CANARY)
        states.append(shows(path))
        # Without a key the search finds it each time: it looks where it should.
        assert [bool(found) for found in states] == [key is None] * 3
    with strata.open(path, key=KEY, read_only=True) as db:
        assert db.kv.get(CANARY) == CANARY
        assert db.branch(CANARY).state.get(CANARY) == CANARY
        assert db.verify().ok


@pytest.mark.parametrize(
    "wrong", [None, NEWER, [NEWER, bytes(range(9, 41))]], ids=["none", "another", "others"]
)
def test_without_the_key_it_stays_closed(tmp_path: Path, wrong: Any) -> None:
    path = tmp_path / "a.strata"
    with strata.open(path, key=KEY) as db:
        fill(db)
        key_id = db.info().key_id
    with pytest.raises(NeedsKey) as caught:
        strata.open(path, key=wrong)
    assert caught.value.needed == key_id
    assert len(caught.value.given) == (0 if wrong is None else 2 if isinstance(wrong, list) else 1)
    with strata.open(path, key=KEY) as db:
        assert db.verify().ok


def a_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FORMS: dict[str, Callable[[Path], Any]] = {
    "bytearray": lambda path: bytearray(KEY),
    "memoryview": lambda path: memoryview(KEY),
    "file": lambda path: a_file(path, KEY),
    "hex": lambda path: a_file(path, KEY.hex().encode()),
    "hex and newline": lambda path: a_file(path, KEY.hex().upper().encode() + b"\n"),
    "function": lambda path: lambda key_id: KEY,
    "function of a file": lambda path: lambda key_id: a_file(path, KEY),
    "list": lambda path: [KEY],
    "older": lambda path: (KEY, NEWER),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_key(tmp_path: Path, form: str) -> None:
    path, key = tmp_path / "a.strata", FORMS[form](tmp_path / "key")
    for _ in range(2):
        with strata.open(path, key=key) as db:
            db.kv.put("a", 1)
    with strata.open(path, key=KEY) as db:
        assert db.kv.get("a") == 1


BAD: dict[str, Callable[[Path], Any]] = {
    "short": lambda path: KEY[:31],
    "long": lambda path: KEY + b"x",
    "zeros": lambda path: bytes(32),
    "text": lambda path: "a password that somebody can guess",
    "number": lambda path: 32,
    "empty": lambda path: [],
    "none in it": lambda path: [KEY, None],
    "no file": lambda path: path / "missing",
    "short file": lambda path: a_file(path, KEY[:31]),
    "long file": lambda path: a_file(path, KEY.hex().encode() + b"\n\n"),
    "no digits": lambda path: a_file(path, b"x" * 64),
    "function of nothing": lambda path: lambda key_id: None,
}


@pytest.mark.parametrize("form", BAD)
def test_what_is_no_key_is_refused_before_anything_is_touched(tmp_path: Path, form: str) -> None:
    key = BAD[form](tmp_path / "key")
    with pytest.raises(InvalidInput) as caught:
        strata.open(tmp_path / "a.strata", key=key)
    assert not (tmp_path / "a.strata").exists()
    assert KEY[:8].hex() not in str(caught.value)
    assert "guess" not in str(caught.value)
    with strata.open(tmp_path / "plain.strata") as db, pytest.raises(InvalidInput):
        db.rotate_key(key)


def test_a_function_is_told_which_key_is_needed(tmp_path: Path) -> None:
    asked: list[str | None] = []
    keys: dict[str | None, bytes] = {None: KEY}

    def vault(key_id: str | None) -> bytes:
        asked.append(key_id)
        return keys[key_id]

    path = tmp_path / "a.strata"
    with strata.open(path, key=vault) as db:
        first = db.info().key_id
        keys[first] = KEY
        db.kv.put("a", 1)
    with strata.open(path, key=vault) as db:
        db.rotate_key(NEWER)
        second = db.info().key_id
        keys[second] = NEWER
    with strata.open(path, key=vault) as db:
        assert db.kv.get("a") == 1
    assert asked == [None, first, second]


def test_a_key_for_a_plain_database_is_refused_and_rotation_encrypts_it(tmp_path: Path) -> None:
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        fill(db)
    for key in (KEY, lambda key_id: KEY):
        with pytest.raises(InvalidInput, match="not encrypted"):
            strata.open(path, key=key)
    with strata.open(path) as db:
        told: list[tuple[int, int]] = []
        db.rotate_key(KEY, progress=lambda done, rows: told.append((done, rows)))
        assert db.info().encrypted
        assert shows(path) == []
        db.kv.put("after", CANARY)
    assert shows(path) == []
    with strata.open(path, key=KEY) as db:
        db.rotate_key(NEWER)
        assert db.verify().ok
    with pytest.raises(NeedsKey):
        strata.open(path, key=KEY)
    with strata.open(path, key=NEWER) as db:
        assert (db.kv.get("after"), len(list(db.kv.keys(prefix=CANARY)))) == (CANARY, 30)


def test_the_way_back_to_plain_files(tmp_path: Path) -> None:
    path = tmp_path / "a.strata"
    with strata.open(path, key=KEY) as db:
        fill(db)
        db.rotate_key(None)
        assert not db.info().encrypted and db.info().key_id is None
        db.kv.put("after", 1)
        db.rotate_key(None)
    assert shows(path)
    with pytest.raises(InvalidInput, match="not encrypted"):
        strata.open(path, key=KEY)
    with strata.open(path) as db:
        assert db.kv.get("after") == 1 and db.verify().ok
        db.rotate_key(KEY)
    assert shows(path) == []


def test_backup_and_restore_through_a_change_of_keys(tmp_path: Path) -> None:
    """The directory goes on; once it is renewed only the new key opens it."""
    backup = tmp_path / "backup"
    with strata.open(tmp_path / "a.strata") as db:
        db.kv.put(CANARY, 0)
        db.backup(backup)
        for number, key in enumerate((KEY, NEWER), start=1):
            db.rotate_key(key)
            db.kv.put(CANARY, number)
            db.backup(backup)
            assert shows(backup) == []
            assert db.backup(backup).new_runs == 0
            with strata.open(backup, key=key, read_only=True) as copy:
                assert copy.kv.get(CANARY) == number
            strata.restore(backup, tmp_path / f"{number}.strata", key=key)
            with strata.open(tmp_path / f"{number}.strata", key=key) as restored:
                assert restored.kv.get(CANARY) == number and restored.info().encrypted
    with pytest.raises(NeedsKey):
        strata.restore(backup, tmp_path / "no.strata", key=KEY)
    with pytest.raises(NeedsKey):
        strata.restore(backup, tmp_path / "no.strata")
    assert not (tmp_path / "no.strata").exists()
    # Of several the first is that of the new one; and a function is asked for what is needed.
    strata.restore(backup, tmp_path / "other.strata", key=[KEY, NEWER])
    strata.restore(backup, tmp_path / "asked.strata", key=lambda key_id: NEWER)
    with strata.open(tmp_path / "other.strata", key=KEY) as restored:
        assert restored.kv.get(CANARY) == 2


@pytest.mark.parametrize("history", [False, True])
def test_bundles(tmp_path: Path, history: bool) -> None:
    with strata.open(tmp_path / "a.strata", key=KEY) as db:
        fill(db)
        key_id = db.info().key_id
        plain = db.export(tmp_path / "plain.bundle", history=history)
        made = db.export(tmp_path / "sealed.bundle", history=history, key=KEY)
        assert db.export(tmp_path / "again.bundle", history=history, key=KEY) == made
    assert (plain.key_id, made.key_id) == (None, key_id)
    assert CANARY.encode() not in (tmp_path / "sealed.bundle").read_bytes()
    for wrong in (None, NEWER):
        with pytest.raises(NeedsKey):
            strata.verify_bundle(tmp_path / "sealed.bundle", key=wrong)
        with pytest.raises(NeedsKey):
            strata.import_(tmp_path / "sealed.bundle", tmp_path / "no.strata", key=wrong)
    asked: list[str | None] = []

    def vault(wanted: str | None) -> bytes:
        asked.append(wanted)
        return KEY if wanted else NEWER

    assert strata.verify_bundle(tmp_path / "sealed.bundle", key=vault) == made
    assert strata.import_(tmp_path / "sealed.bundle", tmp_path / "b.strata", key=vault) == made
    assert asked == [key_id, None, key_id]
    strata.import_(tmp_path / "plain.bundle", tmp_path / "c.strata", key=NEWER)
    strata.import_(tmp_path / "plain.bundle", tmp_path / "d.strata")
    assert shows(tmp_path / "b.strata") == shows(tmp_path / "c.strata") == []
    for name, key in (("b", NEWER), ("c", NEWER), ("d", None)):
        with strata.open(tmp_path / f"{name}.strata", key=key) as copy:
            assert copy.state.get(CANARY) == CANARY and copy.verify().ok


def test_memory_takes_no_key() -> None:
    with pytest.raises(InvalidInput):
        strata.open(key=KEY)
    with strata.open() as db, pytest.raises(InvalidInput):
        db.rotate_key(KEY)


def test_on_a_simulated_disk() -> None:
    disk = SimDisk(1)
    with strata.open(disk=disk, key=KEY) as db:
        db.kv.put("a", 1)
    with strata.open(disk=disk, key=lambda key_id: KEY) as db:
        assert db.kv.get("a") == 1


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    with strata.open(tmp_path / "a.strata", key=KEY) as db:
        texts = [repr(db), str(db.info()), repr(db.info()), repr(db._store)]
    assert not any(KEY[:4].hex() in text or repr(KEY)[2:20] in text for text in texts)


def test_a_copy_of_the_directory_opens_with_the_key(tmp_path: Path) -> None:
    with strata.open(tmp_path / "a.strata", key=KEY) as db:
        fill(db)
    shutil.copytree(tmp_path / "a.strata", tmp_path / "b.strata")
    os.remove(tmp_path / "b.strata" / "LOCK")
    with strata.open(tmp_path / "b.strata", key=KEY) as db:
        assert db.verify().ok
