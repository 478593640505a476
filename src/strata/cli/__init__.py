"""The command line: `strata <command>`.

Each command is a function `run(arguments) -> exit code` in a module of its own, imported when it is called.
Exit codes: 0 well, 1 the error that was printed, 2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

from strata.cli.opening import add_key_file
from strata.core.errors import StrataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code. An error becomes a line or two, never a traceback."""
    given = _parser().parse_args(arguments)
    try:
        return _command(given.run)(given)
    except StrataError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone. What Python would flush at exit must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    module, function = name.split(":")
    return cast(Callable[[argparse.Namespace], int], getattr(import_module(module), function))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from strata import __version__

        print(f"strata {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="strata", description="The SQLite of agent memory.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo(commands)
    _data(commands)
    _upkeep(commands)
    _inspect(commands)
    _portable(commands)
    _history(commands)
    _search(commands)
    _branching(commands)
    _ingest(commands)
    for name, command in commands.choices.items():
        if name != "demo":
            add_key_file(command)
    return parser


def _demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="see an agent's memory work on real text")
    demo.add_argument(
        "--input",
        metavar="FILE",
        help='a chat log as JSON lines ({"role": ..., "content": ...}) or the LoCoMo conversations; '
        "without it, the documentation strings of Python's standard library",
    )
    demo.add_argument("--keep", metavar="DIR", help="make the database in DIR and leave it there")
    demo.add_argument("--quick", action="store_true", help="a few dozen modules instead of all")
    demo.set_defaults(run="strata.cli.demo:run")


def _data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    info = commands.add_parser("info", help="say what a database is and holds")
    branches = commands.add_parser("branches", help="list the branches")
    log = commands.add_parser("log", help="list the commits of a branch, newest first")
    get = commands.add_parser("get", help="print the value of a key as JSON")
    put = commands.add_parser("put", help="put a value, given as JSON, under a key")
    checkpoint = commands.add_parser("checkpoint", help="write what is only in the log to a run")
    verify = commands.add_parser("verify", help="read everything, and say what is damaged")
    for command, function in (
        (info, "info"),
        (branches, "branches"),
        (log, "log"),
        (get, "get"),
        (put, "put"),
        (checkpoint, "checkpoint"),
        (verify, "verify"),
    ):
        command.add_argument("path", metavar="PATH", help="the database's directory")
        command.set_defaults(run=f"strata.cli.data:{function}")
    for command in (log, get, put):
        command.add_argument("--branch", default="main", help="the branch (main)")
    for command in (get, put):
        command.add_argument("--space", default="default", help="the space (default)")
        command.add_argument("key", metavar="KEY")
    info.add_argument("--json", action="store_true", help="print it as JSON")
    log.add_argument("--actor", metavar="NAME", help="only commits by NAME")
    log.add_argument("--primitive", help="only commits that wrote to it")
    log.add_argument("--limit", type=int, metavar="N", help="at most N commits")
    get.add_argument(
        "--at", metavar="WHEN", help="as it was at a version, or at an instant like 2026-01-31T12:00Z"
    )
    put.add_argument("value", metavar="JSON", help="""such as 42, '"text"' or '{"a": [1, 2]}'""")
    put.add_argument("--message", metavar="TEXT", help="what the commit says about itself")


def _upkeep(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compact = commands.add_parser("compact", help="give back what nobody can read any more")
    retention = commands.add_parser("retention", help="say how much history is kept, or list what was said")
    forget = commands.add_parser(
        "forget", help="remove a key from all versions, branches and files, for good"
    )
    for command, function in ((compact, "compact"), (retention, "retention"), (forget, "forget")):
        command.add_argument("path", metavar="PATH", help="the database's directory")
        command.set_defaults(run=f"strata.cli.upkeep:{function}")
    compact.add_argument("--log", action="store_true", help="only the log, as a checkpoint does")
    change = retention.add_mutually_exclusive_group()
    change.add_argument("--set", metavar="POLICY", help="all, last=3, for=30d, or 'last=3 or for=30d'")
    change.add_argument("--clear", action="store_true", help="take back the policy for exactly this")
    retention.add_argument("--branch", help="for this branch (all)")
    retention.add_argument("--space", help="for this space (all)")
    retention.add_argument("--primitive", help="for this primitive (all)")
    forget.add_argument("primitive", metavar="PRIMITIVE", help="kv, events, state, json or traces")
    forget.add_argument(
        "key", metavar="KEY", help="the key, or the name of a stream, cell, document or trace"
    )
    forget.add_argument("--prefix", action="store_true", help="all that begin with KEY")
    where = forget.add_mutually_exclusive_group()
    where.add_argument("--space", default="default", help="the space (default)")
    where.add_argument("--all-spaces", action="store_true", help="every space")
    forget.add_argument("--yes", action="store_true", help="do it: there is no undo")
    rotate = commands.add_parser(
        "rotate-key", help="encrypt all files with another key, or for the first time"
    )
    rotate.add_argument("path", metavar="PATH", help="the database's directory")
    to = rotate.add_mutually_exclusive_group(required=True)
    to.add_argument("--to", metavar="FILE", help="a file with the new key")
    to.add_argument("--to-plain", action="store_true", help="encrypt nothing any more")
    rotate.set_defaults(run="strata.cli.upkeep:rotate_key")


def _inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser("inspect", help="say what stands in a file, also a damaged one")
    inspect.add_argument("path", metavar="PATH", help="a file of a database, its directory, or a bundle")
    inspect.add_argument("--rows", type=int, default=10, metavar="N", help="of a run or bundle N rows (10)")
    inspect.add_argument("--json", action="store_true", help="each line as JSON")
    inspect.set_defaults(run="strata.cli.inspect:run")


def _portable(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="write a database to one portable file")
    export.add_argument("path", metavar="PATH", help="the database's directory")
    export.add_argument("bundle", metavar="FILE", help="the file to make")
    export.add_argument("--branch", help="one branch instead of all")
    export.add_argument("--history", action="store_true", help="all versions, not only the newest")
    export.add_argument("--bundle-key-file", metavar="KEYFILE", help="encrypt FILE with this key")
    take = commands.add_parser("import", help="make a database of such a file")
    take.add_argument("bundle", metavar="FILE", help="the file that export made")
    take.add_argument("path", metavar="PATH", nargs="?", help="the directory to make")
    take.add_argument("--check", action="store_true", help="only check the file; PATH can be left out")
    backup = commands.add_parser("backup", help="make a directory a backup, or bring one up to date")
    backup.add_argument("path", metavar="PATH", help="the database's directory")
    backup.add_argument("to", metavar="DIR", help="the backup's directory")
    restore = commands.add_parser("restore", help="make a database of a backup, also of an earlier version")
    restore.add_argument("backup", metavar="DIR", help="a backup, or any database")
    restore.add_argument("path", metavar="PATH", help="the directory to make")
    restore.add_argument("--at", metavar="WHEN", help="a version, or an instant like 2026-01-31T12:00Z")
    salvage = commands.add_parser("salvage", help="make a database of what is whole of a damaged one")
    salvage.add_argument("path", metavar="PATH", help="the damaged database's directory, which is only read")
    salvage.add_argument("to", metavar="TO", help="the directory to make")
    salvage.set_defaults(run="strata.cli.portable:salvage")
    backup.set_defaults(run="strata.cli.portable:backup")
    restore.set_defaults(run="strata.cli.portable:restore")
    export.set_defaults(run="strata.cli.portable:export")
    take.set_defaults(run="strata.cli.portable:import_")


def _branching(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fork = commands.add_parser("fork", help="make a branch that begins as another is, or was")
    fork.add_argument("path", metavar="PATH", help="the database's directory")
    fork.add_argument("name", metavar="NAME", help="the branch to make")
    fork.add_argument("--source", default="main", help="the branch to fork off (main)")
    fork.add_argument("--at", metavar="WHEN", help="a version, or an instant like 2026-01-31T12:00Z")
    diff = commands.add_parser("diff", help="say what differs between two branches or versions")
    diff.add_argument("path", metavar="PATH", help="the database's directory")
    diff.add_argument("old", metavar="OLD", help="a branch, a version of main, or BRANCH@VERSION")
    diff.add_argument("new", metavar="NEW", nargs="?", help="likewise (main as it is)")
    diff.add_argument("--json", action="store_true", help="each change as JSON, one a line")
    merge = commands.add_parser("merge", help="bring what changed on a branch into another")
    merge.add_argument("path", metavar="PATH", help="the database's directory")
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
    for command in (diff, merge):
        command.add_argument("--space", help="only this space")
        command.add_argument("--primitive", help="only this primitive")
        command.add_argument("--prefix", help="only what begins so")
    for command, function in ((fork, "fork"), (diff, "diff"), (merge, "merge")):
        command.set_defaults(run=f"strata.cli.branching:{function}")


def _ingest(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ingest = commands.add_parser("ingest", help="take in what others recorded, as events and traces")
    ingest.add_argument("path", metavar="PATH", help="the database's directory")
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
    ingest.set_defaults(run="strata.cli.ingest:run")


def _history(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    replay = commands.add_parser("replay", help="step through what a run did")
    replay.add_argument("path", metavar="PATH", help="the database's directory")
    replay.add_argument("source", metavar="RUN", help="the id of a run, or a branch")
    replay.add_argument("--branch", default="main", help="the branch on which the run was begun (main)")
    replay.add_argument("--space", default="default", help="the space in which it was begun (default)")
    replay.add_argument("--all", action="store_true", help="print all steps at once")
    replay.add_argument("--json", action="store_true", help="each step as JSON, one a line")
    replay.set_defaults(run="strata.cli.history:replay")
    watch = commands.add_parser("watch", help="print what is committed, a line of JSON each, as it comes")
    watch.add_argument("path", metavar="PATH", help="the database's directory")
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
    watch.set_defaults(run="strata.cli.history:watch")
    explain = commands.add_parser("explain", help="say why something is what it is")
    explain.add_argument("path", metavar="PATH", help="the database's directory")
    explain.add_argument("ref", metavar="REF", help="strata://main/default/kv/key, perhaps #$.path, @version")
    explain.add_argument("--depth", type=int, default=3, metavar="N", help="so many commits deep (3)")
    explain.add_argument("--limit", type=int, default=100, metavar="N", help="look at so many things (100)")
    explain.add_argument("--json", action="store_true", help="print it as JSON")
    explain.set_defaults(run="strata.cli.history:explain")


def _search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    search = commands.add_parser("search", help="find what fits best")
    search.add_argument("path", metavar="PATH", help="the database's directory")
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
    search.set_defaults(run="strata.cli.search:run")
