"""`strata shell`: verbs line by line, with completion and history where prompt_toolkit is installed."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from strata.cli.opening import open_database
from strata.cli.session import Session, loop

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer

HISTORY: Final = "STRATA_HISTORY"


def run(given: Namespace) -> int:
    """Run lines from the terminal, or from what is piped in, which ends at the first error."""
    with open_database(given, create=not given.read_only, read_only=given.read_only) as database:
        session = Session(database, given.branch, given.space)
        if sys.stdin.isatty() and sys.stdout.isatty():
            print("help lists the verbs, .quit ends", file=sys.stderr)
            return loop(session, _asker(session), stop=False)
        return loop(session, _next_line, stop=True)


def _next_line(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _asker(session: Session) -> Callable[[str], str]:
    """Return what asks for a line at the terminal."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory
    except ImportError:
        print("for completion and history: pip install 'strata-embedded[cli]'", file=sys.stderr)
        return input
    file = _history()
    history = InMemoryHistory() if file is None else FileHistory(str(file))
    asking: PromptSession[str] = PromptSession(
        history=history, completer=_completer(session), complete_while_typing=False
    )
    return asking.prompt


def _completer(session: Session) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Catalogue(Completer):
        def get_completions(self, document: Any, _: Any) -> Iterable[Completion]:
            text = document.text_before_cursor
            last = text.split()[-1] if text and not text[-1].isspace() else ""
            for word in session.complete(text):
                yield Completion(word, start_position=-len(last))

    return Catalogue()


def _history() -> Path | None:
    """Return the file of the lines that were typed, which only its owner may read; None to keep none."""
    named = os.environ.get(HISTORY)
    if named == "":
        return None
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(named) if named else Path(state) / "strata" / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return None  # a home that cannot be written to must not keep anybody out of a database
    return file
