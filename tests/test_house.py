"""The house rules that a text search can check. Each message names the cure.

The two lists of exceptions are a ratchet: an entry may only shrink, and goes when it is no longer needed.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 700
FUNCTION_LINES = 70
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

# A path of somebody's machine, not of the project.
MACHINE = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|opt/\w+/env)/\w")
# What only kernel/strata-kernel/src/env/real.rs may say. Clippy denies the calls; this also sees names
# in macros and behind aliases.
WORLD = re.compile(
    r"std::fs\b|std::net\b|std::time::(?:\{[^}]*)?(?:Instant|SystemTime)|Instant::now|SystemTime::now"
    r"|thread::(?:spawn|sleep|scope|Builder)|\bmmap\b|\brand::|RandomState|collections::(?:\{[^}]*)?Hash(?:Map|Set)"
)
GATED = ["kernel/strata-kernel/src", "kernel/strata-python/src"]
DOOR = "kernel/strata-kernel/src/env/real.rs"


def tracked() -> list[str]:
    """Every text file of the project; git knows, and what it does not track yet counts as well."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if found.returncode == 0:
        return [name for name in found.stdout.splitlines() if (ROOT / name).is_file()]
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.suffix in {".py", ".rs", ".md"}]


FILES = tracked()
SOURCES = [name for name in FILES if name.endswith((".py", ".pyi", ".rs"))]


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8", errors="replace")


def rust_without_tests(name: str) -> str:
    """The file down to its test module: tests may use the real world, and may be long."""
    return re.split(r"^#\[cfg\(test\)\]\s*\nmod ", text(name), maxsplit=1, flags=re.M)[0]


def python_functions(name: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None and first.end_lineno is not None:
                length -= first.end_lineno - first.lineno + 1  # prose is not what makes a function long
            yield f"{name}:{node.name}", length


def rust_functions(name: str) -> Iterator[tuple[str, int]]:
    """By indentation: rustfmt closes a function with a brace below its `fn`."""
    lines = rust_without_tests(name).splitlines()
    for start, line in enumerate(lines):
        opened = re.match(r"^( *)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)", line)
        if opened is None:
            continue
        body = next(number for number in range(start, len(lines)) if lines[number].endswith(("{", "}", ";")))
        if not lines[body].endswith("{"):
            continue  # on one line, or a declaration in a trait
        end = next(number for number in range(body, len(lines)) if lines[number] == f"{opened[1]}}}")
        yield f"{name}:{opened[2]}", end - start + 1


def ratchet(found: dict[str, int], limit: int, known: dict[str, int], where: str) -> None:
    """What is above the limit must be known, and what is known may only shrink."""
    over = {name: lines for name, lines in found.items() if lines > limit}
    new = {name: lines for name, lines in over.items() if lines > known.get(name, limit)}
    assert not new, f"longer than {limit} lines (or than it was); split it: {new}"
    shrunk = {name: over.get(name) for name, lines in known.items() if over.get(name) != lines}
    assert not shrunk, f"shorter than {where} says (None: no longer needed). Lower it there: {shrunk}"


def test_files_do_not_grow_without_end() -> None:
    sizes = {
        name: (rust_without_tests(name) if name.endswith(".rs") else text(name)).count("\n")
        for name in SOURCES
    }
    ratchet(sizes, FILE_LINES, LONG_FILES, "LONG_FILES")


def test_functions_do_not_grow_without_end() -> None:
    found: dict[str, int] = {}
    for name in SOURCES:
        functions = rust_functions(name) if name.endswith(".rs") else python_functions(name)
        for function, lines in functions:
            found[function] = max(lines, found.get(function, 0))
    ratchet(found, FUNCTION_LINES, LONG_FUNCTIONS, "LONG_FUNCTIONS")


def test_no_path_of_a_machine() -> None:
    wrong = []
    for name in FILES:
        if not name.endswith((".lock", ".png", ".ico", ".woff2")):
            for number, line in enumerate(text(name).splitlines(), 1):
                if MACHINE.search(line):
                    wrong.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not wrong, "say it relative to the project or the user's directory:\n  " + "\n  ".join(wrong)


def test_the_kernel_has_one_door_to_the_world() -> None:
    wrong = []
    for name in SOURCES:
        if not name.startswith(tuple(GATED)) or name == DOOR or "/tests" in name:
            continue
        for number, line in enumerate(rust_without_tests(name).splitlines(), 1):
            code = line.split("//")[0]
            if WORLD.search(code):
                wrong.append(f"{name}:{number}: {code.strip()[:100]}")
    assert not wrong, "go through strata_kernel::env (Disk, Clock, Rng, Spawn):\n  " + "\n  ".join(wrong)


def test_the_gate_itself_sees_what_it_must() -> None:
    for line in [
        "use std::fs::File;",
        "let t = Instant::now();",
        "use std::time::{Duration, SystemTime};",
        "std::thread::spawn(f);",
        "use std::collections::{BTreeMap, HashMap};",
    ]:
        assert WORLD.search(line), line
    for line in ["use std::sync::Arc;", "use std::time::Duration;", "use std::collections::BTreeMap;"]:
        assert not WORLD.search(line), line
    assert MACHINE.search("open('/" + "home/ada/x')") and not MACHINE.search("src/work/x and ~/work")


def test_make_help_names_every_target() -> None:
    makefile = text("Makefile")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())  # type: ignore[index]
    helped = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    assert phony == helped, f"give each target a `## text` and list it in .PHONY: {sorted(phony ^ helped)}"
