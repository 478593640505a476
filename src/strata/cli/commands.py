"""The commands that people use by one word: what each takes. What they do stands in modules of their own.

They print for reading, where the verbs of the catalogue (`verbs`) print JSON.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, cast

from strata.cli.parsing import Parser, Secret


@dataclass(frozen=True)
class Command:
    """A command, and where to find what it does."""

    summary: str
    run: str  # module:function, imported when it is called
    add_arguments: Callable[[Parser], None]
    has_path: bool = True  # first, of a database, or its URL
    secrets: tuple[Secret, ...] = ("key", "token")

    def parser(self, name: str) -> Parser:
        """Return the parser of what follows its name."""
        parser = Parser(f"strata {name}", lambda: (f"{self.summary[0].upper()}{self.summary[1:]}.", ""))
        if self.has_path:
            parser.add_argument("path", metavar="PATH", help="the database's directory, or a URL")
        self.add_arguments(parser)
        parser.add_secrets(*self.secrets)
        return parser

    def call(self, given: Namespace) -> int:
        """Run it, and return its exit code."""
        module, function = self.run.split(":")
        return cast(Callable[[Namespace], int], getattr(import_module(f"strata.cli.{module}"), function))(
            given
        )


def _nothing(_: Parser) -> None: ...


def _demo(demo: Parser) -> None:
    demo.add_argument(
        "--input",
        metavar="FILE",
        help='a chat log as JSON lines ({"role": ..., "content": ...}) or the LoCoMo conversations; '
        "without it, the documentation strings of Python's standard library",
    )
    demo.add_argument("--keep", metavar="DIR", help="make the database in DIR and leave it there")
    demo.add_argument("--quick", action="store_true", help="a few dozen modules instead of all")


def _info(info: Parser) -> None:
    info.add_argument("--json", action="store_true", help="print it as JSON")


def _log(log: Parser) -> None:
    log.add_argument("--branch", default="main", help="the branch (main)")
    log.add_argument("--actor", metavar="NAME", help="only commits by NAME")
    log.add_argument("--primitive", help="only commits that wrote to it")
    log.add_argument("--limit", type=int, metavar="N", help="at most N commits")


def _get(get: Parser) -> None:
    _place_and_key(get)
    get.add_argument(
        "--at", metavar="WHEN", help="as it was at a version, or at an instant like 2026-01-31T12:00Z"
    )


def _put(put: Parser) -> None:
    _place_and_key(put)
    put.add_argument(
        "value",
        metavar="JSON",
        nargs="?",
        help="""such as 42, '"text"' or '{"a": [1]}'; - is standard input""",
    )
    put.add_argument("--message", metavar="TEXT", help="what the commit says about itself")


def _place_and_key(command: Parser) -> None:
    command.add_argument("--branch", default="main", help="the branch (main)")
    command.add_argument("--space", default="default", help="the space (default)")
    command.add_argument("key", metavar="KEY")


def _compact(compact: Parser) -> None:
    compact.add_argument("--log", action="store_true", help="only the log, as a checkpoint does")


def _retention(retention: Parser) -> None:
    change = retention.add_mutually_exclusive_group()
    change.add_argument("--set", metavar="POLICY", help="all, last=3, for=30d, or 'last=3 or for=30d'")
    change.add_argument("--clear", action="store_true", help="take back the policy for exactly this")
    retention.add_argument("--branch", help="for this branch (all)")
    retention.add_argument("--space", help="for this space (all)")
    retention.add_argument("--primitive", help="for this primitive (all)")


def _forget(forget: Parser) -> None:
    forget.add_argument("primitive", metavar="PRIMITIVE", help="kv, events, state, json or traces")
    forget.add_argument(
        "key", metavar="KEY", help="the key, or the name of a stream, cell, document or trace"
    )
    forget.add_argument("--prefix", action="store_true", help="all that begin with KEY")
    where = forget.add_mutually_exclusive_group()
    where.add_argument("--space", default="default", help="the space (default)")
    where.add_argument("--all-spaces", action="store_true", help="every space")
    forget.add_argument("--yes", action="store_true", help="do it: there is no undo")


def _rotate(rotate: Parser) -> None:
    to = rotate.add_mutually_exclusive_group(required=True)
    to.add_argument("--to", metavar="FILE", help="a file with the new key")
    to.add_argument("--to-plain", action="store_true", help="encrypt nothing any more")


def _inspect(inspect: Parser) -> None:
    inspect.add_argument("path", metavar="PATH", help="a file of a database, its directory, or a bundle")
    inspect.add_argument("--rows", type=int, default=10, metavar="N", help="of a run or bundle N rows (10)")
    inspect.add_argument("--json", action="store_true", help="each line as JSON")


def _export(export: Parser) -> None:
    export.add_argument("file", metavar="FILE", help="the file to make; - is standard output")
    export.add_argument("--branch", help="one branch: of bundles instead of all, of other formats (main)")
    export.add_argument(
        "--history", action="store_true", help="bundle, rstmdb: all that was, not only what is"
    )
    export.add_argument("--bundle-key-file", metavar="KEYFILE", help="bundle: encrypt FILE with this key")
    _data(export)
    export.add_argument("--at", metavar="WHEN", help="as it was at a version, a time, or tag:NAME")
    export.add_argument("--prefix", help="only keys that begin so")


def _import(take: Parser) -> None:
    take.add_argument("path", metavar="PATH", help="the database; of a bundle the directory to make")
    take.add_argument("file", metavar="FILE", nargs="?", help="the file to take in; - is standard input")
    take.add_argument("--check", action="store_true", help="bundle, rstmdb: only check FILE; without PATH")
    take.add_argument("--branch", help="where to (main)")
    take.add_argument("--message", metavar="TEXT", help="what the commit says about itself")
    take.add_argument("--text", action="store_true", help="csv: every cell is a text")
    take.add_argument(
        "--salvage",
        action="store_true",
        help="rstmdb: leave out what is damaged or cannot be kept, and say so",
    )
    _data(take)


def _data(command: Parser) -> None:
    """Say which data, where the file is no bundle."""
    command.add_argument(
        "--format",
        choices=("bundle", "jsonl", "csv", "arrow", "parquet", "sqlite", "rstmdb"),
        help="of FILE, where its extension says nothing or something else (a bundle)",
    )
    command.add_argument("--primitive", choices=("kv", "json", "events", "vectors"), help="of what (kv)")
    command.add_argument("--space", help="the space (default)")
    command.add_argument("--key", metavar="COLUMN", help="the key; the other columns together are the value")
    command.add_argument("--stream", help="events: the stream (main)")
    command.add_argument("--collection", help="vectors: the collection")
    command.add_argument("--table", help="sqlite: the table (called as the primitive)")


def _backup(backup: Parser) -> None:
    backup.add_argument("to", metavar="DIR", help="the backup's directory")


def _restore(restore: Parser) -> None:
    restore.add_argument("backup", metavar="DIR", help="a backup, or any database")
    restore.add_argument("path", metavar="PATH", help="the directory to make")
    restore.add_argument("--at", metavar="WHEN", help="a version, or an instant like 2026-01-31T12:00Z")


def _salvage(salvage: Parser) -> None:
    salvage.add_argument("to", metavar="TO", help="the directory to make")


def _fork(fork: Parser) -> None:
    fork.add_argument("name", metavar="NAME", help="the branch to make")
    fork.add_argument("--source", default="main", help="the branch to fork off (main)")
    fork.add_argument("--at", metavar="WHEN", help="a version, or an instant like 2026-01-31T12:00Z")


def _diff(diff: Parser) -> None:
    diff.add_argument("old", metavar="OLD", help="a branch, a version of main, or BRANCH@VERSION")
    diff.add_argument("new", metavar="NEW", nargs="?", help="likewise (main as it is)")
    diff.add_argument("--json", action="store_true", help="each change as JSON, one a line")
    _part(diff)


def _merge(merge: Parser) -> None:
    merge.add_argument("source", metavar="SOURCE", help="the branch to merge")
    merge.add_argument("target", metavar="TARGET", nargs="?", default="main", help="into which (main)")
    merge.add_argument(
        "--strategy",
        default="strict",
        choices=("strict", "source", "target"),
        help="what wins where both changed the same; strict refuses (strict)",
    )
    merge.add_argument("--preview", action="store_true", help="only say what would be")
    merge.add_argument("--message", metavar="TEXT", help="what the commit says about itself")
    _part(merge)


def _part(command: Parser) -> None:
    command.add_argument("--space", help="only this space")
    command.add_argument("--primitive", help="only this primitive")
    command.add_argument("--prefix", help="only what begins so")


def _ingest(ingest: Parser) -> None:
    ingest.add_argument("file", metavar="FILE", help="JSON, or JSON lines; - is standard input")
    ingest.add_argument(
        "--format",
        required=True,
        choices=("otlp", "openai"),
        help="OpenTelemetry spans, or messages as the API of OpenAI has them",
    )
    ingest.add_argument("--branch", default="main", help="the branch (main)")
    ingest.add_argument("--space", default="default", help="the space (default)")
    ingest.add_argument("--tag", action="append", default=[], help="of all traces; may be given again")
    ingest.add_argument("--roots", action="store_true", help="otlp: spans whose parent is missing are roots")
    ingest.add_argument("--stream", default="main", help="openai: the stream of the events (main)")
    ingest.add_argument("--id", help="openai: of the conversation")
    ingest.add_argument("--time-field", metavar="NAME", help="openai: the field that has a message's time")


def _replay(replay: Parser) -> None:
    replay.add_argument("source", metavar="RUN", help="the id of a run, or a branch")
    replay.add_argument("--branch", default="main", help="the branch on which the run was begun (main)")
    replay.add_argument("--space", default="default", help="the space in which it was begun (default)")
    replay.add_argument("--all", action="store_true", help="print all steps at once")
    replay.add_argument("--json", action="store_true", help="each step as JSON, one a line")


def _watch(watch: Parser) -> None:
    watch.add_argument("--branch", default="main", help="the branch (main)")
    watch.add_argument("--space", help="only this space")
    watch.add_argument("--primitive", help="only this primitive")
    watch.add_argument("--prefix", help="only what begins so")
    watch.add_argument("--type", help="only events of this type")
    watch.add_argument(
        "--from", dest="from_version", type=int, metavar="VERSION", help="begin after it (now)"
    )
    watch.add_argument("--limit", type=int, metavar="N", help="end after N commits")
    watch.add_argument("--timeout", type=float, metavar="S", help="end when nothing came for S seconds")


def _explain(explain: Parser) -> None:
    explain.add_argument("ref", metavar="REF", help="strata://main/default/kv/key, perhaps #$.path, @version")
    explain.add_argument("--depth", type=int, default=3, metavar="N", help="so many commits deep (3)")
    explain.add_argument("--limit", type=int, default=100, metavar="N", help="look at so many things (100)")
    explain.add_argument("--json", action="store_true", help="print it as JSON")


def _search(search: Parser) -> None:
    search.add_argument(
        "text", metavar="TEXT", help="""words; also '"a phrase"', +must, -not, field:word, pre*"""
    )
    search.add_argument("--branch", default="main", help="the branch (main)")
    search.add_argument("--space", action="append", help="the space (default); may be given again")
    search.add_argument("--primitive", action="append", help="only this one (all); may be given again")
    search.add_argument("--prefix", help="only keys that begin so")
    search.add_argument(
        "--where", metavar="JSON", help="""only values that pass, as '{"$.status": "open"}'"""
    )
    search.add_argument("--start", metavar="WHEN", help="only what was written since")
    search.add_argument("--end", metavar="WHEN", help="only what was written before")
    search.add_argument("-k", "--k", type=int, default=10, metavar="N", help="so many (10)")
    search.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the N best (0)")
    search.add_argument("--at", metavar="WHEN", help="as it was at a version, or an instant")
    search.add_argument(
        "--context", type=int, default=0, metavar="N", help="with N turns of a conversation around (0)"
    )
    search.add_argument("--scan", action="store_true", help="read everything where there is no index")
    search.add_argument("--explain", action="store_true", help="say why, and what was nearly found")
    search.add_argument("--json", action="store_true", help="print it as JSON")


def _shell(shell: Parser) -> None:
    shell.add_argument("--branch", default="main", help="where to begin (main)")
    shell.add_argument("--space", default="default", help="where to begin (default)")
    shell.add_argument("--read-only", action="store_true", help="change nothing")


def _doctor(doctor: Parser) -> None:
    doctor.add_argument("--full", action="store_true", help="read everything, also where that takes long")
    doctor.add_argument("--json", action="store_true", help="print it as JSON")


def _bench(bench: Parser) -> None:
    bench.add_argument("path", metavar="DIR", nargs="?", help="a directory on the disk to measure")
    bench.add_argument("--quick", action="store_true", help="few rounds, whose figures say little")
    bench.add_argument("--json", action="store_true", help="print it as JSON")


def _completion(completion: Parser) -> None:
    completion.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="for which shell")


def _serve(serve: Parser) -> None:
    from strata.cli.serve import add_arguments  # and with it the server, which no other command needs

    add_arguments(serve)


def _worker(worker: Parser) -> None:
    from strata.cli.worker import add_arguments

    add_arguments(worker)


def _token(token: Parser) -> None:
    token.add_argument("access", choices=("read", "write", "admin"), help="what it allows")
    token.add_argument("name", nargs="?", default="", help="whose it is")


def _mcp(mcp: Parser) -> None:
    mcp.add_argument("--branch", help="reach this branch only (all)")
    mcp.add_argument("--space", help="reach this space only (all)")
    mcp.add_argument("--read-only", action="store_true", help="offer no tool that writes")
    mcp.add_argument(
        "--embedder",
        metavar="NAME",
        help="make vectors of texts with it: hashing-256, hashing-512, or module:name of your own (none)",
    )
    mcp.add_argument(
        "--http", metavar="HOST:PORT", help="serve streamable HTTP there instead of standard input and output"
    )
    mcp.add_argument("--tokens", metavar="FILE", help="with --http: who may connect, and what they may do")


COMMANDS: Final[dict[str, Command]] = {
    "demo": Command(
        "see an agent's memory work on real text", "demo:run", _demo, has_path=False, secrets=()
    ),
    "info": Command("say what a database is and holds", "data:info", _info),
    "branches": Command("list the branches", "data:branches", _nothing),
    "log": Command("list the commits of a branch, newest first", "data:log", _log),
    "get": Command("print the value of a key as JSON", "data:get", _get),
    "put": Command("put a value, given as JSON, under a key", "data:put", _put),
    "search": Command("find what fits best", "search:run", _search),
    "shell": Command("run verbs line by line, with transactions and completion", "shell:run", _shell),
    "fork": Command("make a branch that begins as another is, or was", "branching:fork", _fork),
    "diff": Command("say what differs between two branches or versions", "branching:diff", _diff),
    "merge": Command("bring what changed on a branch into another", "branching:merge", _merge),
    "replay": Command("step through what a run did", "history:replay", _replay),
    "watch": Command("print what is committed, a line of JSON each, as it comes", "history:watch", _watch),
    "explain": Command("say why something is what it is", "history:explain", _explain),
    "ingest": Command("take in what others recorded, as events and traces", "ingest:run", _ingest),
    "checkpoint": Command("write what is only in the log to a run", "data:checkpoint", _nothing),
    "verify": Command("read everything, and say what is damaged", "data:verify", _nothing),
    "compact": Command("give back what nobody can read any more", "upkeep:compact", _compact),
    "retention": Command(
        "say how much history is kept, or list what was said", "upkeep:retention", _retention
    ),
    "forget": Command(
        "remove a key from all versions, branches and files, for good", "upkeep:forget", _forget
    ),
    "rotate-key": Command(
        "encrypt all files with another key, or for the first time", "upkeep:rotate_key", _rotate
    ),
    "inspect": Command(
        "say what stands in a file, also a damaged one", "inspect:run", _inspect,
        has_path=False, secrets=("key",),
    ),
    "export": Command(
        "write a database to one portable file, or data to a file of others", "portable:export", _export
    ),
    "import": Command(
        "make a database of a portable file, or take in data of others", "portable:import_", _import,
        has_path=False,
    ),
    "backup": Command("make a directory a backup, or bring one up to date", "portable:backup", _backup),
    "restore": Command(
        "make a database of a backup, also of an earlier version", "portable:restore", _restore,
        has_path=False, secrets=("key",),
    ),
    "salvage": Command("make a database of what is whole of a damaged one", "portable:salvage", _salvage),
    "serve": Command("serve a database to other processes and machines", "serve:run", _serve),
    "worker": Command("fire timers and deliver webhooks of a database", "worker:run", _worker),
    "token": Command(
        "make a token for who connects to a server", "serve:token", _token, has_path=False, secrets=()
    ),
    "mcp": Command("serve a database to agent hosts, as their memory", "mcp:run", _mcp),
    "doctor": Command("check a database and where it lies, and say what to do", "doctor:run", _doctor),
    "bench": Command(
        "measure a few operations on this machine", "bench:run", _bench, has_path=False, secrets=()
    ),
    "completion": Command(
        "print what a shell needs to complete command lines", "scripts:run", _completion,
        has_path=False, secrets=(),
    ),
}  # fmt: skip
