"""What a shell does with a line: it knows the database, where one is on it, and the open transaction.

    GROUP VERB ...       an operation, as on the command line without PATH; `kv` and `db` may be left out
    use BRANCH [SPACE]   go there                        mode FORM   json, nl, table or csv
    begin [MESSAGE]      begin a transaction             commit, rollback   end it
    help [VERB]          what there is                   .quit       end

Inside a transaction operations see and change what it does. What cannot be inside (branches, indexes, runs)
may be read; changing it is refused until the transaction is over.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, get_args

from strata.api.dispatch import Inside, Where
from strata.api.operations import OPERATIONS
from strata.cli import verbs
from strata.cli.calling import call
from strata.cli.output import Format, show
from strata.cli.verbs import Verb
from strata.core.errors import InvalidInput

if TYPE_CHECKING:
    from strata.api.database import Database
    from strata.api.place import Place
    from strata.api.transaction import Transaction

QUIT: Final = frozenset({".quit", ".exit", "quit", "exit"})
FORMS: Final[tuple[str, ...]] = get_args(Format)
_SHORT: Final = ("kv", verbs.WHOLE)  # the groups that may be left out


class Session:
    """A place in a database, and perhaps a transaction there."""

    def __init__(self, database: Database, branch: str = "main", space: str = "default") -> None:
        self.database = database
        self.branch = branch
        self.space = space
        self.form: Format = "json"
        self._tx: Transaction | None = None
        self._place()  # raises where there is no such branch

    @property
    def prompt(self) -> str:
        """Where one is: branch, space unless it is the default one, and a star inside a transaction."""
        where = self.branch if self.space == "default" else f"{self.branch}/{self.space}"
        return f"{where}{'*' if self._tx else ''}> "

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._tx is not None

    def run(self, line: str) -> None:
        """Do what a line says, and print what comes of it.

        Raises: StrataError; SystemExit, for what is no command, once that was printed.
        """
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise InvalidInput(f"{error}: {line.strip()[:60]!r}", hint="quotes are as in a shell") from None
        if not words:
            return
        own = self._own.get(words[0])
        if own is not None:
            own(self, words[1:])
            return
        verb, rest = self.find(words)
        self._call(verb, verb.parser(prog="").parse_intermixed_args(rest))

    def find(self, words: list[str]) -> tuple[Verb, list[str]]:
        """Return the verb that words begin with, and the rest of them.

        Raises: InvalidInput for none.
        """
        if verb := verbs.find(words):
            return verb, words[2:]
        for group in _SHORT:
            if verb := verbs.find([group, *words]):
                return verb, words[1:]
        raise InvalidInput(f"there is no verb {' '.join(words[:2])!r}", hint="help lists them")

    def rollback(self) -> None:
        """Drop the transaction, if one is open."""
        if self._tx is not None:
            self._tx.rollback()
            self._tx = None

    def complete(self, text: str) -> list[str]:
        """Return what the last word of an unfinished line may become."""
        from strata.cli.completion import complete

        return complete(self, text)

    def rows(self, name: str, limit: int, **arguments: Any) -> list[Any]:
        """Return some rows of an operation, as of where one is."""
        from strata.api.requests import read

        operation = OPERATIONS[name]
        inside = self._tx if operation.in_transactions else None
        said = {**arguments, "limit": limit} if operation.pages else arguments
        request = read(operation, said)
        return list(call(self.database, operation, request, Where(self.branch, self.space), None, inside))

    def _call(self, verb: Verb, given: Namespace) -> None:
        operation, request = verb.operation, verb.request(given)
        where, commit = verb.where(given, branch=self.branch, space=self.space), verb.commit(given)
        inside: Inside | None = None
        if self._tx is not None:
            if operation.in_transactions:
                inside = self._inside(self._tx, where)
            elif operation.access_for(request) != "read":
                raise InvalidInput(f"{verb.name} is no part of transactions", hint="commit or rollback first")
            if commit is not None:
                raise InvalidInput("a transaction is one commit", hint="say what it is about: commit MESSAGE")
        result = call(self.database, operation, request, where, commit, inside)
        if inside is None or result is not None or operation.access == "read":  # else only the commit knows
            show(operation, result, given.form or self.form)

    def _inside(self, tx: Transaction, where: Where) -> Inside:
        if where.at is not None or where.branch != self.branch:
            raise InvalidInput("a transaction sees one branch and version", hint="commit or rollback first")
        return tx if where.space == self.space else tx.space(where.space or self.space)

    def _place(self) -> Place:
        return self.database.branch(self.branch).space(self.space)

    # -- its own words -----------------------------------------------------------------------------

    def _use(self, words: list[str]) -> None:
        if not 1 <= len(words) <= 2:
            raise InvalidInput("use BRANCH [SPACE]")
        if self._tx is not None:
            raise InvalidInput("a transaction is on one branch", hint="commit or rollback first")
        self.database.branch(words[0]).space(words[1] if words[1:] else self.space)
        self.branch, self.space = words[0], words[1] if words[1:] else self.space

    def _mode(self, words: list[str]) -> None:
        if len(words) != 1 or words[0] not in FORMS:
            raise InvalidInput(f"mode {' | '.join(FORMS)}")
        self.form = next(form for form in get_args(Format) if form == words[0])

    def _begin(self, words: list[str]) -> None:
        if self._tx is not None:
            raise InvalidInput("a transaction is open", hint="commit or rollback first")
        self._tx = self._place().transaction(message=" ".join(words) or None)

    def _commit(self, words: list[str]) -> None:
        tx = self._open()
        if words:
            tx.message = " ".join(words)
        self._tx = None  # it is over either way
        print(tx.commit())

    def _rollback(self, words: list[str]) -> None:
        self._open()
        self.rollback()

    def _open(self) -> Transaction:
        if self._tx is None:
            raise InvalidInput("no transaction is open", hint="begin one")
        return self._tx

    def _help(self, words: list[str]) -> None:
        if words:
            verb, _ = self.find(words)
            verb.parser(prog="").print_help()
            return
        print((__doc__ or "").split("\n\n")[1])
        for group, members in verbs.groups().items():
            print(f"    {group:<10} {' '.join(verb.words[1] for verb in members)}")

    _own: Final[dict[str, Callable[[Session, list[str]], None]]] = {
        "use": _use, "mode": _mode, "begin": _begin, "commit": _commit, "rollback": _rollback, "help": _help,
    }  # fmt: skip
    WORDS: Final = (*_own, ".quit")


def loop(session: Session, ask: Callable[[str], str], *, stop: bool) -> int:
    """Run lines until there are no more; return the exit code.

    Args:
        ask: is given the prompt and returns the next line, or raises EOFError.
        stop: end at the first error, with its exit code, as scripts want it.
    """
    from strata.cli import guarded

    while True:
        try:
            line = ask(session.prompt)
        except EOFError:
            return _leave(session)
        except KeyboardInterrupt:
            continue  # drops the line
        if line.strip() in QUIT:
            return _leave(session)
        code = guarded(lambda said=line: session.run(said))  # type: ignore[misc]
        if code and stop:
            _leave(session)
            return code


def _leave(session: Session) -> int:
    if not session.in_transaction:
        return 0
    session.rollback()
    print("error: the transaction was not committed, and is rolled back", file=sys.stderr)
    return 1
