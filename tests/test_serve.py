"""`strata serve`, as a process of its own: clients by URL, tokens, TLS, HTTP beside it, signals."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from rcp_client import Client
from served import certificates

import strata
from strata.errors import (
    AccessDenied,
    InvalidInput,
    LimitExceeded,
    OutcomeUnknown,
    ReadOnly,
    RemoteError,
    TransactionLost,
)
from strata.server.access import Tokens, hash_of, new_token, read_tokens, tokens_of


@contextlib.contextmanager
def served(path, *options, create=True):
    """`strata serve` on ports that are free; gives the process and what its first line says."""
    command = [sys.executable, "-m", "strata.cli", "serve", str(path), *map(str, options)]
    with subprocess.Popen(
        [*command, *(["--create"] if create else [])], stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        try:
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()


def lines_of(process):
    """What the server says from here to its end."""
    return [json.loads(line)["event"] for line in process.stderr]


@pytest.fixture
def tls():
    """A directory with an authority, and a server and a client whose certificates it signed."""
    return certificates()


def test_a_client_works_as_on_a_database_of_its_own(tmp_path):
    with (
        served(tmp_path / "a.strata", "--listen", "127.0.0.1:0", "--socket", tmp_path / "s") as (
            process,
            said,
        ),
        strata.connect(said["at"]["clients"]) as db,
        strata.connect(said["at"]["socket"]) as other,
    ):
        db.kv.put("k", {"a": [1, 2.5, None, b"x"]})
        with other.transaction(message="theirs") as tx:
            tx.kv.put("n", tx.kv.get("n", 0) + 1)
        draft = db.branches.fork("main", "draft")
        draft.json.set("doc", "$.a", 1)
        assert (db.kv.get("n"), other.branch("draft").json.get("doc")) == (1, {"a": 1})
        assert other.kv.get("k") == {"a": [1, 2.5, None, b"x"]}
        with pytest.raises(AccessDenied):
            db.backup(tmp_path / "b.strata")  # a file of the server's machine
        other.backup(tmp_path / "b.strata")
        process.terminate()
        assert lines_of(process) == ["signal", "draining", "ended"]
        assert process.wait() == 0
    with strata.open(tmp_path / "a.strata") as db:
        assert db.kv.get("n") == 1


def test_a_signal_ends_it_and_no_acknowledged_write_is_lost(tmp_path):
    """Clients write without a pause while it ends; what was acknowledged is there, and nothing else."""
    with served(tmp_path / "a.strata", "--listen", "127.0.0.1:0") as (process, said):
        acknowledged, begun = [], threading.Event()

        def write(worker):
            with strata.connect(said["at"]["clients"], timeout_s=0.2) as db:
                for number in range(100_000):
                    try:
                        db.events.append("e", {"worker": worker, "number": number})
                    except (RemoteError, OutcomeUnknown):
                        return
                    acknowledged.append((worker, number))
                    if len(acknowledged) > 200:
                        begun.set()

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        assert begun.wait(30)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait() == 0
    with strata.open(tmp_path / "a.strata") as db:
        found = [(event.payload["worker"], event.payload["number"]) for event in db.events.range()]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)
        assert len(found) <= len(acknowledged) + 4  # what was under way at the end, of each
        assert db.events.verify().ok


def test_a_server_that_comes_again_is_found_by_its_clients(tmp_path):
    place = tmp_path / "s"
    with served(tmp_path / "a.strata", "--socket", place) as (process, said):
        db = strata.connect(said["at"]["socket"])
        branch = db.branches.fork("main", "draft")
        view = db.at(db.version)
        branch.kv.put("k", 1)
        transaction = db.transaction()
        process.kill()
        process.wait()
    with served(tmp_path / "a.strata", "--socket", place):
        assert (branch.kv.get("k"), view.kv.get("k")) == (1, None)
        branch.kv.incr("n")
        assert branch.kv.get("n") == 1
        with pytest.raises(TransactionLost):
            transaction.kv.get("k")
        db.close()


def test_tokens_say_who_may_do_what(tmp_path):
    path, tokens = tmp_path / "a.strata", tmp_path / "tokens"
    made = {access: new_token() for access in ("read", "write", "admin")}
    tokens.write_text(
        "# who\n\n" + "".join(f"{hash_of(token)} {access} x y\n" for access, token in made.items())
    )
    assert not any(token in tokens.read_text() for token in made.values())
    with served(path, "--listen", "127.0.0.1:0", "--tokens", tokens) as (process, said):
        url = said["at"]["clients"]
        for wrong in (None, "", "strata_wrong", made["read"] + "x"):
            with pytest.raises(AccessDenied) as caught:
                strata.connect(url, token=wrong)
            assert not wrong or wrong not in str(caught.value)
        with strata.connect(url, token=made["admin"]) as db:
            db.kv.put("k", 1)
            db.branches.create("b")
        with strata.connect(url, token=made["write"]) as db:
            db.kv.put("k", 2)
            for denied in (lambda: db.branches.create("c"), db.compact, lambda: db.forget("kv", "k")):
                with pytest.raises(AccessDenied):
                    denied()
        with strata.connect(url, token=made["read"]) as db:
            assert db.kv.get("k") == 2
            for denied in (
                lambda: db.kv.put("k", 3),
                lambda: db.kv.delete("k"),
                lambda: db.events.append("e", {}),
                lambda: db.state.set("s", 1),
                lambda: db.json.set("d", "$.a", 1),
                lambda: db.branch("b").kv.put("k", 1),
            ):
                with pytest.raises(AccessDenied):
                    denied()
            with pytest.raises(AccessDenied), db.transaction() as tx:
                tx.kv.put("k", 3)
            assert db.kv.get("k") == 2
        # A token that is taken away is no longer good on connections that are open.
        with strata.connect(url, token=made["write"], timeout_s=0.2) as db:
            db.kv.put("k", 3)
            tokens.write_text(f"{hash_of(made['read'])} read\n")
            process.send_signal(signal.SIGHUP)
            said = (json.loads(line) for line in process.stderr)
            reloaded = next(line for line in said if line["event"] != "refused")
            assert (reloaded["event"], reloaded["tokens"]) == ("reloaded", 1)
            with pytest.raises((AccessDenied, RemoteError, OutcomeUnknown)):
                for _ in range(1000):
                    db.kv.put("k", 4)


def test_tokens_that_are_none_are_refused_with_their_line(tmp_path):
    for text in ("abc read", "0" * 63, f"{'0' * 64} owner", f"{'G' * 64} read", f"{'0' * 63} read"):
        with pytest.raises(InvalidInput, match="line 2"):
            tokens_of(["# one", text])
    with pytest.raises(strata.errors.NotFound):
        read_tokens(tmp_path / "none")
    with pytest.raises(AccessDenied):
        Tokens({}).access_of("anything")
    assert tokens_of([f"{hash_of('t')} write ada"]).access_of("t") == "write"
    assert tokens_of([hash_of("t")]).access_of("t") == "admin"  # a line of rstmdb's file of secrets


def test_an_address_that_others_reach_needs_tokens(tmp_path):
    command = [sys.executable, "-m", "strata.cli", "serve", str(tmp_path / "a.strata"), "--create"]
    done = subprocess.run([*command, "--listen", "0.0.0.0:0"], capture_output=True, text=True)
    assert done.returncode == 1 and "token" in done.stderr


def test_tls(tmp_path, tls):
    files = ["--tls-certificate", tls / "server.pem", "--tls-key", tls / "server.key"]
    with served(tmp_path / "a.strata", "--listen", "127.0.0.1:0", *files) as (_, said):
        url = said["at"]["clients"]
        assert url.startswith("strata+tls://")
        with strata.connect(url, ca=tls / "ca.pem") as db:
            db.kv.put("k", "x" * 100_000)
            threads = [
                threading.Thread(target=lambda n=n: [db.kv.put(f"{n}/{i}", i) for i in range(50)])
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (db.kv.count(), db.kv.get("k")) == (201, "x" * 100_000)
        with pytest.raises(RemoteError):
            strata.connect(url, timeout_s=0.3)  # nobody signed it whom we trust
        with pytest.raises(RemoteError):
            strata.connect(url.replace("+tls", ""), timeout_s=0.3)  # and it does not speak without


def test_clients_without_a_certificate_are_not_taken_where_one_is_asked_for(tmp_path, tls):
    files = ["--tls-certificate", tls / "server.pem", "--tls-key", tls / "server.key"]
    options = [*files, "--tls-client-authority", tls / "ca.pem"]
    with served(tmp_path / "a.strata", "--listen", "127.0.0.1:0", *options) as (_, said):
        url = said["at"]["clients"]
        own = {"certificate": tls / "client.pem", "certificate_key": tls / "client.key"}
        with strata.connect(url, ca=tls / "ca.pem", **own) as db:
            assert db.kv.put("k", 1)
        with pytest.raises(RemoteError):
            strata.connect(url, ca=tls / "ca.pem", timeout_s=0.3)


def test_a_server_that_only_reads(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put("k", 1)
    with (
        served(path, "--listen", "127.0.0.1:0", "--read-only", create=False) as (_, said),
        strata.connect(said["at"]["clients"]) as db,
    ):
        assert db.kv.get("k") == 1
        with pytest.raises((AccessDenied, ReadOnly)):
            db.kv.put("k", 2)


def test_limits(tmp_path):
    path = tmp_path / "a.strata"
    options = ["--max-connections", 2, "--max-frame-bytes", 100_000]
    with served(path, "--listen", "127.0.0.1:0", *options) as (_, said):
        url = said["at"]["clients"]
        with strata.connect(url) as db, strata.connect(url):
            with pytest.raises(LimitExceeded):
                strata.connect(url)
            with pytest.raises(RemoteError):
                db.kv.put("k", b"x" * 200_000)
            assert db.kv.put("k", b"x" * 90_000)


def test_http_health_and_metrics_beside_it(tmp_path):
    pytest.importorskip("uvicorn")
    options = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with served(tmp_path / "a.strata", *options) as (_, said):
        at = said["at"]
        with strata.connect(at["clients"]) as db:
            db.kv.put("k", 1)

        def get(url):
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read().decode()

        assert json.loads(get(f"{at['http']}/v1/kv/k")) == 1
        assert get(f"{at['admin']}/healthz") and get(f"{at['admin']}/readyz")
        assert "strata_" in get(f"{at['admin']}/metrics")


def test_a_log_of_requests(tmp_path):
    pytest.importorskip("uvicorn")
    tokens = tmp_path / "tokens"
    made = new_token()
    tokens.write_text(f"{hash_of(made)} write\n")
    options = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tokens", tokens, "--log-requests"]
    with served(tmp_path / "a.strata", *options) as (process, said):
        with strata.connect(said["at"]["clients"], token=made) as db:
            db.kv.put("key-canary", "value-canary")
        with pytest.raises(AccessDenied):
            strata.connect(said["at"]["clients"], token="strata_canary")
        url = f"{said['at']['http']}/v1/kv/key-canary"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(url, timeout=20)
        process.terminate()
        text = process.stderr.read()
    lines = [json.loads(line) for line in text.splitlines()]
    told = [(line["event"], line.get("name", line.get("over"))) for line in lines]
    for expected in (("opened", "tcp"), ("request", "put"), ("refused", "tcp"), ("refused", "http")):
        assert expected in told
    assert told[-1] == ("ended", None) and "canary" not in text and made not in text


def test_rcp_beside_the_others(tmp_path):
    """A file of secrets of rstmdb's, the flags, metrics on the admin port, and both kinds of signals."""
    pytest.importorskip("uvicorn")
    secrets = tmp_path / "secrets"
    secrets.write_text(f"# rstmdb\n{hash_of('one')}\n")
    options = ["--rcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--socket", tmp_path / "s"]
    options += ["--tokens", secrets, "--rcp-max-machine-versions", 1, "--rcp-no-recreate"]
    with served(tmp_path / "a.strata", *options, "--rcp-allow-flush-all") as (process, said):
        host, _, port = said["at"]["rcp"].rpartition(":")

        def client():
            return Client(socket.create_connection((host, int(port)), timeout=20), is_line=True)

        with client() as first, strata.connect(said["at"]["socket"]) as db:
            assert first.code("LIST_MACHINES") == "UNAUTHORIZED"
            first.get("AUTH", token="one")
            order = {"machine": "order", "definition": {"states": ["a"], "initial": "a", "transitions": []}}
            assert first.get("PUT_MACHINE", **order, version=1)["stored_checksum"] == "6b16bc3e"
            assert first.code("PUT_MACHINE", **order, version=2) == "MACHINE_VERSION_LIMIT_EXCEEDED"
            first.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o")
            assert db.machines.get("o").state == "a"
            db.machines.delete("o")
            again = {"machine": "order", "version": 1, "instance_id": "o"}
            assert first.code("CREATE_INSTANCE", **again) == "INSTANCE_EXISTS"
            with urllib.request.urlopen(f"{said['at']['admin']}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            assert "strata_version" in text and "rstmdb_machines_total 1\n" in text
            assert first.get("FLUSH_ALL")["machines_removed"] == 1
            watch = first.get("WATCH_ALL")["subscription_id"]
            secrets.write_text(f"{hash_of('two')}\n")
            process.send_signal(signal.SIGHUP)
            assert first.message()["subscription_id"] == watch and first.message() is None
        with client() as second:
            assert second.code("AUTH", token="one") == "AUTH_FAILED"
            second.get("AUTH", token="two")
            watch = second.get("WATCH_ALL")["subscription_id"]
            process.terminate()
            ended = second.message()
            assert (ended["type"], ended["subscription_id"]) == ("end", watch)
            assert second.message() is None
        assert lines_of(process)[-1] == "ended"


def test_urls_that_are_none():
    for url in (
        "",
        "127.0.0.1:6380",
        "http://x",
        "strata://",
        "strata://a:b@x",
        "strata://x/path",
        "unix:",
        7,
    ):
        with pytest.raises(InvalidInput):
            strata.connect(url)
    with pytest.raises(InvalidInput):
        strata.connect("strata://127.0.0.1:1", ca="x")
    with pytest.raises(RemoteError):
        strata.connect("strata://127.0.0.1:1", timeout_s=0.05)
