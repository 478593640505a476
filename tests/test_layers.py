"""Imports go one way: the import graph of src/strata, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src"

# Each may import what stands below it, and nothing beside or above. Rooms that are not built yet have their
# place already (architecture, section 2).
FLOORS = [
    {"cli", "console", "integrations"},
    {"sync", "replication", "backup", "agents", "aio", "worker"},
    {"strata"},  # strata/__init__.py and strata/errors.py: the public names, `open` and `connect` among them
    {"remote"},  # which becomes a host when the owner of a directory goes
    {"server"},
    {"api"},
    {"search", "history"},
    {"primitives"},
    {"core"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Off the staircase: who may import them, and what they may import.
IMPORTERS = {
    "_kernel": {"store"},
    "store": {"api", "strata", "testing"},  # testing gives users SimDisk; strata gives __version__
    "testing": set(),
    "wire": {"server", "remote", "sync", "replication", "testing"},
}
IMPORTS = {
    "_kernel": {"core"},
    "store": {"core", "_kernel"},
    "testing": {"strata", "api", "search", "history", "primitives", "core", "store", "wire"},
    "wire": {"core"},
}
# What a primitive means must not depend on the machine or the moment: time and chance are passed in.
WORLD = {"os", "io", "pathlib", "socket", "subprocess", "tempfile", "shutil", "random", "secrets", "time"}
DOORS = {"core/clock.py", "core/atomic.py", "core/ids.py"}  # the clock, a pause, and chance


class Import(NamedTuple):
    file: str
    line: int
    room: str
    target: str  # a room, or the top of a package that is not ours

    def __str__(self) -> str:
        return f"src/strata/{self.file}:{self.line}: {self.room} imports {self.target}"


def room_of(file: str) -> str:
    first = file.split("/")[0]
    if first in ("__init__.py", "errors.py"):
        return "strata"
    return first.removesuffix(".pyi").removesuffix(".py")


def imports(file: str) -> Iterator[Import]:
    """Every import of one file, also those inside functions and for type checkers only."""
    room = room_of(file)
    package = ["strata", *file.split("/")[:-1]]
    for node in ast.walk(ast.parse((SOURCE / "strata" / file).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "strata":
                yield Import(file, node.lineno, room, parts[0])
            elif len(parts) > 1 and (parts[1] in FLOOR or parts[1] in IMPORTERS):
                yield Import(file, node.lineno, room, parts[1])
            else:
                yield Import(file, node.lineno, room, "strata")


FILES = sorted(
    str(path.relative_to(SOURCE / "strata").as_posix())
    for pattern in ("*.py", "*.pyi")
    for path in (SOURCE / "strata").rglob(pattern)
)
IMPORTS_FOUND = [found for file in FILES for found in imports(file)]


def allowed(room: str, target: str) -> bool:
    if room == target:
        return True
    if target in IMPORTERS and room not in IMPORTERS[target]:
        return False
    if room in IMPORTS:
        return target in IMPORTS[room]
    return target in IMPORTERS or FLOOR.get(room, -1) < FLOOR[target]


def test_every_room_is_known() -> None:
    unknown = sorted({room_of(file) for file in FILES} - FLOOR.keys() - IMPORTERS.keys())
    assert not unknown, f"give {unknown} a floor in tests/test_layers.py, after the design has one for it"


def test_imports_go_one_way() -> None:
    ours = (found for found in IMPORTS_FOUND if found.target in FLOOR or found.target in IMPORTERS)
    wrong = [str(found) for found in ours if not allowed(found.room, found.target)]
    order = " -> ".join("/".join(sorted(rooms)) for rooms in FLOORS)
    assert not wrong, "turn these imports round:\n  " + "\n  ".join(wrong) + f"\nthe order is {order}"


def test_core_and_primitives_do_not_touch_the_world() -> None:
    wrong = [
        str(found)
        for found in IMPORTS_FOUND
        if found.room in ("core", "primitives") and found.target in WORLD and found.file not in DOORS
    ]
    assert not wrong, "take this as an argument, or go through core/clock.py:\n  " + "\n  ".join(wrong)


def test_the_check_itself_sees_a_wrong_import() -> None:
    for room, target in [("core", "primitives"), ("primitives", "api"), ("cli", "store"), ("api", "_kernel")]:
        assert not allowed(room, target), f"{room} -> {target} must be refused"
    for room, target in [("cli", "api"), ("api", "store"), ("store", "_kernel"), ("testing", "store")]:
        assert allowed(room, target), f"{room} -> {target} must be allowed"
