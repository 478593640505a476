"""The acceptance table of the reference on rstmdb, row by row: which tests show it, or what it waits for.

Of each capability the part that belongs to the data is shown here; what needs a listener, a server or
several machines is later work and is named as such. What clients of rstmdb see: tests/test_rcp*.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machine_cases import ORDER

import strata

TESTS = Path(__file__).parent
KERNEL = "the kernel shows it for all primitives alike: make sim, tests/crash"
CLIENT, SERVER, CLUSTER = "a client of our own for RCP", "the server", "replication"

# capability: tests of it, or where it is shown, or the later work that it belongs to
SHOWN = {
    "definitions, versions, immutability": [
        "test_a_version_never_changes",
        "test_checksums_are_those_of_rstmdb",
        "test_machines_are_listed_by_name_and_number",
    ],
    "multi-source, meta": [
        "test_an_event_goes_from_each_of_several_states",
        "test_meta_makes_the_round_trip",
    ],
    "ordered alternatives": [
        "test_alternatives_are_tried_in_their_order",
        "test_an_alternative_that_could_never_be_taken_is_refused",
    ],
    "guards": [
        "test_what_guards_mean",
        "test_what_is_no_guard_is_refused",
        "test_any_text_is_a_guard_or_refused",
        "test_guards_mean_what_python_means",
    ],
    "lifecycle, soft delete, re-create": ["test_deletion_is_soft"],
    "ctx default, shallow merge": ["test_payloads_are_merged_key_by_key"],
    "optimistic checks": ["test_optimistic_checks", "test_what_is_expected"],
    "durable idempotency": [
        "test_a_key_makes_a_call_happen_once",
        "test_a_key_holds_after_a_kill",
        "test_a_key_gives_one_commit_and_one_event_also_after_a_kill",
    ],
    "batch both modes": [
        "test_an_offset_inside_a_batch_is_that_of_its_last_change",
        "test_batches_that_are_none",
        "test_a_bad_item_fails_alone_or_takes_all_with_it",
        "test_a_kill_in_the_middle_of_batches_leaves_whole_ones",
    ],
    "durability, fsync policies": ["test_a_kill_in_the_middle_of_batches_leaves_whole_ones"],
    "torn tail, bad CRC": KERNEL,
    "snapshot + compaction": ["test_a_compaction_loses_no_machine"],
    "auto compaction": ["test_a_compaction_loses_no_machine"],
    "metrics, health": [
        "test_metrics_are_under_the_names_of_rstmdb",
        "test_a_disk_that_failed_is_not_ready",
    ],
    "watches, filters": [
        "test_commits_that_others_make_are_seen",
        "test_an_event_says_what_was_done",
        "test_filters_are_and_across_lists_and_or_inside",
    ],
    "replay from offset": [
        "test_from_an_offset_first_what_was_and_then_what_comes",
        "test_from_offset_under_load_nothing_is_missed_or_twice",
        "test_what_is_no_longer_kept_is_refused_with_where_it_begins",
    ],
    "slow watcher": [
        "test_a_client_that_does_not_read_gets_all_of_it_later_and_holds_up_nobody",
        "test_a_subscription_ends_where_what_comes_next_was_let_go_of",
    ],
    "auth, secrets file, rotation": [
        "test_every_operation_needs_a_token_but_four",
        "test_a_token_that_is_taken_back_ends_what_it_began",
        "test_rcp_beside_the_others",
    ],
    "TLS, mTLS": ["test_connecting", "test_a_certificate_is_asked_for"],
    "CLI, REPL": CLIENT,
    "RCP listener": [
        "test_this_file_calls_every_method",
        "test_what_it_has_no_method_for",
        "test_a_hundred_requests_at_once",
        "test_messages_in_all_shapes",
        "test_every_code_is_reached",
        "test_entries_say_what_was_done",
        "test_a_backup_holds_the_log",
    ],
    "sync client, pool, types": CLIENT,
    "replication, read-only replica": CLUSTER,
    "sync mode, lag": CLUSTER,
    "promotion, fencing, client failover": CLUSTER,
    "Raft, membership, quorum, rolling upgrade": CLUSTER,
    "encryption at rest, audit log, RBAC": SERVER,
    "PITR, incremental, hot backup": CLUSTER,
    "cross-region": CLUSTER,
    "OTel, hot reload, admin API, drain": SERVER,
    "sharding; log compression; multiplexing": CLUSTER,
    "replica routing, stale reads": CLUSTER,
    "REST + OpenAPI": SERVER,
    "gRPC; GraphQL": SERVER,
    "webhooks": [
        "test_a_webhook_is_delivered_once_end_to_end",
        "test_signatures_are_those_of_the_specification",
        "test_it_is_tried_later_and_later_and_then_given_up",
        "test_each_change_is_delivered_at_least_once_and_in_order",
        "test_no_transition_is_lost_when_who_delivers_is_killed",
        "test_the_same_key_after_a_kill_is_one_commit_one_watch_event_and_one_webhook",
    ],
    "TTL; version migration": [
        "test_an_expired_instance_is_gone",
        "test_instances_migrate_in_one_commit_and_back",
        "test_a_migration_that_cannot_be_does_nothing",
    ],
    "flush, version limit": [
        "test_clear_removes_everything_for_good",
        "test_an_empty_page_and_statistics",
        "test_there_may_be_a_limit_to_versions",
    ],
    "Studio-like UI": SERVER,
    "embedded, indexes, ctx queries": [
        "test_find_by_state_and_context_through_an_index",
        "test_pages_are_stable_while_instances_come_and_go",
    ],
}


@pytest.mark.parametrize("capability", [name for name, shown in SHOWN.items() if isinstance(shown, list)])
def test_each_row_is_shown_by_tests_that_there_are(capability):
    known = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert set(SHOWN[capability]) <= known


CHILD = """
import json, os, signal, sys
import strata

db = strata.open(sys.argv[1])
db.machines.define("order", 1, json.loads(sys.argv[2]))
made = db.machines.create("order", idempotency_key="c")
done = db.machines.apply(made.id, "PAY", {"a": 1}, idempotency_key="k")
print(made.id, done.version, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_key_holds_after_a_kill(tmp_path):
    path = tmp_path / "db"
    command = [sys.executable, "-c", CHILD, str(path), json.dumps(ORDER)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    id, version = ended.stdout.split()
    with strata.open(path) as db:
        assert db.machines.create("order", idempotency_key="c").id == id
        again = db.machines.apply(id, "PAY", {"a": 1}, idempotency_key="k")
        assert (again.applied, again.version, again.to_state, again.context) == (
            False,
            int(version),
            "paid",
            {"a": 1},
        )
        assert db.version == int(version)
        assert [step.event for step in db.machines.history(id)] == ["PAY", None]


BATCHES = """
import json, sys
import strata

db = strata.open(sys.argv[1])
db.machines.define("order", 1, json.loads(sys.argv[2]))
number = 0
while True:
    ids = [f"{number:05}-{part}" for part in range(3)]
    items = [{"op": "create", "machine": "order", "id": id} for id in ids]
    items += [{"op": "apply", "id": id, "event": "PAY"} for id in ids]
    db.machines.batch(items, atomic=True)
    print(number, flush=True)
    number += 1
"""


def test_a_kill_in_the_middle_of_batches_leaves_whole_ones(tmp_path):
    path = tmp_path / "db"
    command = [sys.executable, "-c", BATCHES, str(path), json.dumps(ORDER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        acknowledged = [int(child.stdout.readline()) for _ in range(20)][-1]
        os.kill(child.pid, signal.SIGKILL)
    with strata.open(path) as db:
        found = [(instance.id, instance.state, instance.steps) for instance in db.machines]
        assert found == [
            (f"{number:05}-{part}", "paid", 1) for number in range(len(found) // 3) for part in range(3)
        ]
        assert len(found) // 3 > acknowledged
        assert db.machines.count("order", "created") == 0


def test_a_compaction_loses_no_machine(tmp_path):
    path = tmp_path / "db"
    with strata.open(path) as db:
        db.machines.define("order", 1, ORDER)
        for id in ("idle", "busy", "gone"):
            db.machines.create("order", id, {"a": 1}, idempotency_key="k")
        db.machines.apply("busy", "TOUCH", idempotency_key="k")
        for number in range(50):
            db.machines.apply("busy", "TOUCH", {"n": number})
        db.machines.delete("gone")
        db.retention.set(strata.KeepLast(1))
        before = [*db.machines]
        db.compact()
    with strata.open(path) as db:
        assert [*db.machines] == before
        assert db.machines.count("order", "created") == 2
        assert not db.machines.apply("busy", "TOUCH", idempotency_key="k").applied
        assert db.machines.apply("busy", "PAY").to_state == "paid"
        assert [step.event for step in db.machines.history("busy", limit=1)] == ["PAY"]
        assert db.machines.create("order", "gone").state == "created"
