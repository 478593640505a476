"""Plans in processes of their own, which can be killed.

One process at a time has a database open. So the child has none: its run is a stand-in, whose calls go
through a pipe to the process that has it, are made there on the real run, and come back.

    child to parent     ("call", handle, name, arguments, keywords), ("done", error, result)
    parent to child     ("value", value), ("handle", number, class), ("raise", error)

Handles (spaces, transactions, primitives) stay with the parent and are numbered, 0 being the run. What is
read bit by bit (a scan, a diff) comes as a list. A child that ends leaves nothing half done: each call is
whole or was not made, and its open transactions are rolled back.

Both sides are this program, so what they send each other is pickled. Nobody else can reach the pipe.
"""

from __future__ import annotations

import inspect
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Final

from strata.api import Run, Transaction
from strata.api.face import Face, Spaces
from strata.core.errors import InvalidInput
from strata.history.watch import Watch
from strata.primitives import PRIMITIVES
from strata.primitives.base import Primitive

_HANDLES: Final = (Face, Spaces, Primitive)
_PLAIN: Final = (str, bytes, list, dict, tuple, set, frozenset)
_LAST_S: Final = 2.0  # for a process to end by itself, once it has nothing more to say
# A child must not begin with a copy of the threads and locks of the database: it is started anew.
_context: Final = multiprocessing.get_context("spawn")

Report = Callable[["BaseException | None", Any], None]


class Process:
    """Carries out a plan in a process, and makes its calls."""

    def __init__(self, run: Run, plan: Callable[[Any], Any], report: Report) -> None:
        self._pipe, theirs = _context.Pipe()
        self._report = report
        self._lock = threading.Lock()
        self._is_over = False
        self._handles: list[Any] = [run]
        self._process = _context.Process(target=carry_out, args=(theirs, plan), name=run.name, daemon=True)
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()  # so that the pipe ends when the child does
        threading.Thread(target=self._serve, name=run.name, daemon=True).start()

    def kill(self) -> None:
        """End the process now, if it has not ended."""
        with self._lock:
            if not self._is_over:
                self._process.kill()

    def _serve(self) -> None:
        error: BaseException | None
        try:
            error, result = self._make_calls()
        except (EOFError, OSError):
            self._bury()
            error, result = ChildProcessError(_how_it_ended(self._process.exitcode)), None
        except BaseException as failure:  # what it sent cannot be read
            error, result = failure, None
        for handle in self._handles:
            if isinstance(handle, Transaction):
                handle.rollback()
        self._report(error, result)
        self._bury()
        self._pipe.close()

    def _bury(self) -> None:
        """Wait until the process has ended; see to it, should it go on without the pipe."""
        with self._lock:
            self._is_over = True  # from here on its number may soon be that of another process
        if not wait([self._process.sentinel], _LAST_S):
            self._process.kill()
        self._process.join()

    def _make_calls(self) -> tuple[BaseException | None, Any]:
        while True:
            message = self._pipe.recv()
            if message[0] == "done":
                return message[1], message[2]
            try:
                answer = self._make(*message[1:])
            except Exception as error:
                answer = ("raise", error)
            _send(self._pipe, answer)

    def _make(
        self, handle: int, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[Any, ...]:
        found = getattr(self._handles[handle], name)
        if callable(found) and not isinstance(found, _HANDLES):
            found = found(*arguments, **keywords)
        if isinstance(found, Watch):  # which may wait longer than the plan has, and nobody could stop it
            raise InvalidInput(
                "a plan in a process of its own does not watch", hint="workers='threads', or look at db.log"
            )
        if isinstance(found, _HANDLES):
            self._handles.append(found)
            # Not its type: what stands for a handle has the methods of that.
            return "handle", len(self._handles) - 1, found.__class__
        if isinstance(found, Iterable) and not isinstance(found, _PLAIN):
            found = list(found)
        return "value", found


def carry_out(pipe: Connection, plan: Callable[[Any], Any]) -> None:
    """Carry out a plan in this process, which is the child."""
    line = _Line(pipe)
    answer: tuple[Any, ...]
    try:
        answer = ("done", None, plan(Far(line, 0, Run)))
    except BaseException as error:
        answer = ("done", error, None)
    with line.lock:
        _send(pipe, answer)


class _Line:
    """The way to the parent: one call at a time."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.lock = threading.Lock()

    def ask(self, handle: int, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Return what a call of the parent's handle returns."""
        for value in (*arguments, *keywords.values()):
            if isinstance(value, Far) or (callable(value) and not isinstance(value, type)):
                raise InvalidInput(
                    f"{name} takes no function and no handle in a process of its own",
                    hint="use `with run.transaction() as tx`, and names of branches; or workers='threads'",
                )
        with self.lock:
            self.pipe.send(("call", handle, name, arguments, keywords))
            answer = self.pipe.recv()
        if answer[0] == "raise":
            raise answer[1]
        return Far(self, answer[1], answer[2]) if answer[0] == "handle" else answer[1]


class Far:
    """Stands in for a handle that the parent has: it has the same methods and properties."""

    def __init__(self, line: _Line, handle: int, cls: type[Any]) -> None:
        self.__dict__.update(_line=line, _handle=handle, _cls=cls)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if issubclass(self._cls, Face) and name in PRIMITIVES:
            found = self._line.ask(self._handle, name)
            self.__dict__[name] = found  # it stays the same
            return found
        member = inspect.getattr_static(self._cls, name, None)
        if inspect.isfunction(member):
            return lambda *arguments, **keywords: self._line.ask(self._handle, name, *arguments, **keywords)
        return self._line.ask(self._handle, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set from another process; give it as an argument")

    def __enter__(self) -> Far:
        self._line.ask(self._handle, "__enter__")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.ask(self._handle, "__exit__", kind, error, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._line.ask(self._handle, "__iter__"))

    def __len__(self) -> int:
        found: int = self._line.ask(self._handle, "__len__")
        return found

    def __contains__(self, key: object) -> bool:
        found: bool = self._line.ask(self._handle, "__contains__", key)
        return found

    def __repr__(self) -> str:
        return f"<{self._cls.__name__} in another process>"


def _send(pipe: Connection, message: tuple[Any, ...]) -> None:
    """Send a message; where it cannot be pickled, what it says of itself."""
    try:
        pipe.send(message)
    except OSError:
        pass  # nobody is there any more
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        problem = next((part for part in message if isinstance(part, BaseException)), None)
        text = said if problem is None else f"{type(problem).__name__}: {problem}"
        failure = InvalidInput(f"what a plan returns or raises must be sent to another process: {text}")
        pipe.send(("done", failure, None) if message[0] == "done" else ("raise", failure))


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was killed by signal {-code}"
    return f"the process ended with exit code {code} before the plan did"
