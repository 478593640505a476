"""doctor, bench and completion: what they find, print, and leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import databases
import pytest
from test_cli import strata_

import strata
from strata.cli import COMMANDS, SHARED, doctor
from strata.cli.overview import parsers


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "db"
    with strata.open(path) as db:
        db.kv.put_many({f"k{number}": "x" * 50 for number in range(200)})
    return path


def found(capsys, *words):
    """Return the exit code of doctor, and what it found by check."""
    code, out, errors = strata_(capsys, "doctor", *words, "--json")
    assert errors == ""
    return code, {row["check"]: row for row in json.loads(out)}


def test_a_healthy_database(capsys, path):
    before = databases.tree(path)
    code, checks = found(capsys, path)
    assert code == 0 and "bad" not in {row["state"] for row in checks.values()}
    assert checks.keys() >= {"versions", "permissions", "disk", "file system", "lock", "format", "content"}
    assert strata.__version__ in checks["versions"]["said"] and "rows and" in checks["content"]["said"]
    assert databases.tree(path).keys() == before.keys()
    code, out, _ = strata_(capsys, "doctor", path)
    assert code == 0 and out.count("\n") >= len(checks)


def test_what_is_no_database(capsys, path, tmp_path):
    for other in (tmp_path / "none", tmp_path, path / "MANIFEST"):
        code, checks = found(capsys, other)
        assert code == 1 and checks["path"]["state"] == "bad" and checks["path"]["todo"]
    assert not (tmp_path / "none").exists()


def test_damage(capsys, path):
    (run,) = (path / "DATA").glob("*.run")
    content = bytearray(run.read_bytes())
    content[len(content) // 3] ^= 0xFF
    run.write_bytes(content)
    code, checks = found(capsys, path)
    bad = [row for row in checks.values() if row["state"] == "bad"]
    assert code == 1 and len(bad) == 1 and "salvage" in bad[0]["todo"]
    code, out, _ = strata_(capsys, "doctor", path)
    assert code == 1 and "BAD " in out and "-> " in out


def test_a_missing_manifest(capsys, path):
    for name in ("MANIFEST", "MANIFEST.bak"):
        (path / name).unlink()
    assert "salvage" in found(capsys, path)[1]["path"]["todo"]


def test_a_key_that_is_missing(capsys, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    strata.open(tmp_path / "sealed", key=key).close()
    code, checks = found(capsys, tmp_path / "sealed")
    assert code == 1 and "--key-file" in checks["encryption"]["todo"]
    code, checks = found(capsys, tmp_path / "sealed", "--key-file", key)
    assert code == 0 and "encrypted with key" in checks["encryption"]["said"]


def test_permissions(capsys, path):
    os.chmod(path, 0o755)
    (run,) = (path / "DATA").glob("*.run")
    os.chmod(run, 0o644)
    assert found(capsys, path)[1]["permissions"]["state"] == "warn"
    os.chmod(run, 0o666)
    assert found(capsys, path)[1]["permissions"]["state"] == "bad"
    os.chmod(run, 0o600)
    assert found(capsys, path)[1]["permissions"]["state"] == "ok"


def test_a_full_disk_and_a_network_drive(capsys, path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000, "total": 10**12})())
    monkeypatch.setattr(doctor, "_file_system", lambda _: "nfs4")
    code, checks = found(capsys, path)
    assert code == 0 and checks["disk"]["state"] == checks["file system"]["state"] == "warn"
    monkeypatch.setattr(doctor, "_file_system", lambda _: "tmpfs")
    assert "restart" in found(capsys, path)[1]["file system"]["said"]


def test_large_databases_are_read_when_asked(capsys, path, monkeypatch):
    monkeypatch.setattr(doctor, "QUICK", 10)
    assert "--full" in found(capsys, path)[1]["content"]["said"]
    assert "rows and" in found(capsys, path, "--full")[1]["content"]["said"]


def test_a_url(capsys, monkeypatch):
    monkeypatch.setattr(strata, "connect", lambda url, **_: strata.open())
    code, checks = found(capsys, "strata://h:1")
    assert code == 0 and "permissions" not in checks and "format" in checks


def test_who_has_it_open(capsys, path):
    with strata.open(path):
        code, checks = found(capsys, path)
        assert code == 0 and f"pid {os.getpid()}" in checks["lock"]["said"] and "content" in checks
    code, checks = found(capsys, f"unix:{path}/none")
    assert code == 1 and checks["server"]["state"] == "bad"


def test_bench(capsys, tmp_path):
    code, out, _ = strata_(capsys, "bench", tmp_path, "--quick", "--json")
    made = json.loads(out)
    assert code == 0 and made["directory"] == str(tmp_path)
    assert {row["what"] for row in made["rows"]} >= {
        "get, memory",
        "scan 100, buffered",
        "put, synced to disk",
    }
    for row in made["rows"]:
        assert 0 < row["p50_us"] <= row["p95_us"] <= row["p99_us"] <= row["max_us"]
    assert list(tmp_path.iterdir()) == []
    assert strata_(capsys, "bench", tmp_path / "none")[0] == 1


def test_bench_makes_nothing_inside_a_database(capsys, path):
    before = databases.tree(path)
    code, out, _ = strata_(capsys, "bench", path, "--quick")
    assert code == 0 and "p99 us" in out and str(path.parent) in out
    assert databases.tree(path) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(capsys, name):
    code, out, _ = strata_(capsys, name, "--help")
    if name in SHARED:  # the group's, which names the command
        assert code == 0 and f"strata {name} PATH: {COMMANDS[name].summary}" in out
        return
    assert code == 0 and out.startswith(f"usage: strata {name} ")
    assert COMMANDS[name].summary[1:] in " ".join(out.split())


def completed(script, *words):
    line = " ".join(f"'{word}'" for word in words)
    code = f"source {script}; COMP_WORDS=(strata {line}); COMP_CWORD={len(words)}; _strata"
    command = ["bash", "-c", code + "; echo ${COMPREPLY[@]}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_completion_for_bash(capsys, tmp_path):
    script = tmp_path / "strata.bash"
    script.write_text(strata_(capsys, "completion", "bash")[1])
    assert completed(script, "bran") == ["branches"] and "get-many" in completed(script, "kv", "")
    assert completed(script, "branches", "che") == ["cherry-pick"]
    assert completed(script, "kv", "scan", "x", "--re") == ["--reverse"]
    assert completed(script, "log", "x", "--act") == ["--actor"]
    assert completed(script, "replay-until", "x", "--lim") == ["--limit"]
    assert completed(script, "get", "") == []  # bash goes on with files


def test_completion_knows_everything(capsys):
    for shell in ("bash", "zsh", "fish"):
        code, out, _ = strata_(capsys, "completion", shell)
        assert code == 0
        for name in parsers():
            assert all(word in out for word in name.split()), (shell, name)
    assert strata_(capsys, "completion", "tcsh")[0] == 2
    assert set(COMMANDS) <= set(out.replace("'", " ").split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_its_shell(capsys, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    script = tmp_path / "script"
    script.write_text(strata_(capsys, "completion", shell)[1])
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_as_a_program(path):
    """Once from the outside, as a shell would call it."""
    command = [sys.executable, "-m", "strata.cli", "kv", "count", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")


def test_output_is_utf_8_and_input_may_be_closed(path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    line = f"{sys.executable} -m strata.cli"
    script = f"{line} kv put {path} ä '\"ü\"' && {line} kv scan {path} --prefix ä; {line} kv put {path} k <&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment)
    assert done.stdout.decode() == '2\n[["ä", "ü"]]\n'
    assert done.returncode == 2 and b"VALUE" in done.stderr and b"Traceback" not in done.stderr
