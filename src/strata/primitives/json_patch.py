"""JSON Patch (RFC 6902) as patch operations of the kernel.

Each operation is checked against the document and turned into `set`, `insert` and `delete` at resolved paths,
which are then applied in one call: all or nothing, and the kernel sees exactly the paths that are touched.
Only what an operation tests, copies, or must find is read, by its path. Tokens of a pointer are ambiguous
(`/a/0` is an index or a key), so they are resolved by trying which of the two is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, Final

from strata.core.errors import InvalidInput, conflict
from strata.core.patches import ABSENT, apply, get_path
from strata.core.paths import overlap, pointer_tokens, render, token_index
from strata.core.protocols import PatchOp, Path, Step, Txn
from strata.core.values import equal


class Draft:
    """A document as the operations so far will have left it."""

    def __init__(self, txn: Txn, doc: str) -> None:
        self.txn, self.doc = txn, doc
        self.ops: list[PatchOp] = []
        self._touched: list[Path] = []

    def change(self, op: PatchOp, touches: Path) -> None:
        self.ops.append(op)
        self._touched.append(touches)

    def read(self, path: Path) -> Any:
        """Return what is at `path`, or ABSENT.

        What no operation has touched is read by its path alone. Else the smallest part of the document that
        holds this path and the touched ones around it is read, and the operations are applied to it here.
        """
        root = self._smallest_root(path)
        if root is None:
            return self.txn.get_path(self.doc, path, ABSENT)
        part = self.txn.get_path(self.doc, root, ABSENT)
        inside = [op for op, touched in zip(self.ops, self._touched, strict=True) if overlap(touched, root)]
        part, _ = apply(part, [(op[0], op[1][len(root) :], *op[2:]) for op in inside])
        return get_path(part, path[len(root) :], ABSENT)

    def _smallest_root(self, path: Path) -> Path | None:
        found = [touched for touched in self._touched if overlap(touched, path)]
        return min([*found, path], key=len) if found else None


def translate(txn: Txn, doc: str, operations: Iterable[Mapping[str, Any]]) -> list[PatchOp]:
    """Return the patch operations that do what `operations` say.

    Raises: InvalidInput naming the number of the operation; Conflict when a `test` fails.
    """
    draft = Draft(txn, doc)
    for number, operation in enumerate(operations):
        try:
            _translate_one(draft, operation)
        except InvalidInput as error:
            error.args = (f"operation {number} of the patch of {doc!r}: {error.message}",)
            raise
    return draft.ops


def _translate_one(draft: Draft, operation: Any) -> None:
    kind = operation.get("op") if isinstance(operation, Mapping) else None
    if not isinstance(kind, str) or kind not in _OPERATIONS:
        raise InvalidInput(f"{operation!r} is no operation", hint=f"op is one of {', '.join(_OPERATIONS)}")
    needs, act = _OPERATIONS[kind]
    for name in needs:
        if name not in operation:
            raise InvalidInput(f"{kind!r} needs {name!r}")
    act(draft, operation)


def _add(draft: Draft, operation: Mapping[str, Any]) -> None:
    _put(draft, pointer_tokens(operation["path"]), operation["value"])


def _remove(draft: Draft, operation: Mapping[str, Any]) -> None:
    _take(draft, pointer_tokens(operation["path"]))


def _replace(draft: Draft, operation: Mapping[str, Any]) -> None:
    path, _ = _find(draft, pointer_tokens(operation["path"]))
    draft.change(("set", path, operation["value"]), path)


def _move(draft: Draft, operation: Mapping[str, Any]) -> None:
    source, target = pointer_tokens(operation["from"]), pointer_tokens(operation["path"])
    if len(source) < len(target) and target[: len(source)] == source:
        raise InvalidInput(f"{operation['from']!r} cannot be moved into itself, to {operation['path']!r}")
    if source == target:
        _find(draft, source)
        return
    _put(draft, target, _take(draft, source))


def _copy(draft: Draft, operation: Mapping[str, Any]) -> None:
    _, value = _find(draft, pointer_tokens(operation["from"]))
    _put(draft, pointer_tokens(operation["path"]), value)


def _test(draft: Draft, operation: Mapping[str, Any]) -> None:
    path, value = _find(draft, pointer_tokens(operation["path"]))
    if not equal(value, operation["value"]):
        raise conflict(paths=[(*draft.txn.names, draft.doc, render(path), render(path))])


def _find(draft: Draft, tokens: tuple[str, ...]) -> tuple[Path, Any]:
    """Return path and value of what the tokens point at.

    Raises: InvalidInput when it is not there.
    """
    for path in product(*map(_readings, tokens)):
        value = draft.read(path)
        if value is not ABSENT:
            return path, value
    raise InvalidInput(f"there is nothing at {_pointer(tokens)!r}")


def _take(draft: Draft, tokens: tuple[str, ...]) -> Any:
    path, value = _find(draft, tokens)
    if not path:
        raise InvalidInput("the root of a document cannot be removed by a patch", hint="use destroy")
    draft.change(("delete", path), path if isinstance(path[-1], str) else path[:-1])
    return value


def _put(draft: Draft, tokens: tuple[str, ...], value: Any) -> None:
    """Add `value`: replace the root, set a map key, or insert into a list."""
    if not tokens:
        _find(draft, ())
        draft.change(("set", (), value), ())
        return
    parent, container = _find(draft, tokens[:-1])
    token = tokens[-1]
    if type(container) is dict:
        path: Path = (*parent, token)
        draft.change(("set", path, value), path)
    elif type(container) is list:
        draft.change(("insert", (*parent, _place(token, len(container))), value), parent)
    else:
        raise InvalidInput(f"{_pointer(tokens[:-1])!r} is neither a map nor a list")


def _place(token: str, length: int) -> Step:
    if token == "-":
        return None
    index = token_index(token)
    if index is None or index > length:
        raise InvalidInput(f"{token!r} is no place in a list of {length}")
    return index


def _readings(token: str) -> tuple[Step, ...]:
    """Return what a token can mean, the likelier first; not `-`, behind which nothing is to be found."""
    index = token_index(token)
    return (token,) if index is None else (index, token)


def _pointer(tokens: Iterable[str]) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


_OPERATIONS: Final[dict[str, tuple[tuple[str, ...], Callable[[Draft, Mapping[str, Any]], None]]]] = {
    "add": (("path", "value"), _add),
    "remove": (("path",), _remove),
    "replace": (("path", "value"), _replace),
    "move": (("from", "path"), _move),
    "copy": (("from", "path"), _copy),
    "test": (("path", "value"), _test),
}
