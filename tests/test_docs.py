"""The documentation is tested: every public name is in it, every snippet runs, every link leads somewhere.

A snippet is a fence of ```python in README.md or docs/. Those of one file run in order, in one namespace and
an empty directory. A fence of ```text right after one is what it prints; `...` stands for what differs each
time. `<!-- not run: why -->` on the line before a fence leaves it out.
"""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import strata
from strata.primitives import PRIMITIVES

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<note><!-- not run: .+ -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$", re.M | re.S
)


class Snippet(NamedTuple):
    line: int
    code: str
    prints: str | None


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets(page: Path) -> Iterator[Snippet]:
    content = page.read_text("utf-8")
    fences = list(FENCE.finditer(content))
    for number, fence in enumerate(fences):
        if fence["kind"] != "python" or fence["note"]:
            continue
        prints = None
        if number + 1 < len(fences) and fences[number + 1]["kind"] == "text":
            between = content[fence.end() : fences[number + 1].start()]
            prints = fences[number + 1]["body"] if not between.strip() else None
        yield Snippet(content.count("\n", 0, fence.start("body")), fence["body"], prints)


def matches(want: str, got: str) -> bool:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(want.rstrip() + "\n", got.rstrip() + "\n", options)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(snippets(page))
    if not found:
        return
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for snippet in found:
            # Blank lines in front, so that a traceback names the line of the page.
            code = compile("\n" * snippet.line + snippet.code, page_name(page), "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            if snippet.prints is not None:
                where = f"{page_name(page)}:{snippet.line}"
                assert matches(snippet.prints, printed.getvalue()), (
                    f"{where} prints\n{printed.getvalue()}\nand the page says\n{snippet.prints}"
                )
    finally:
        for value in list(namespace.values()):
            if isinstance(value, strata.Database):
                value.close()


def members(cls: type) -> list[str]:
    """The public methods and properties of a class, those of its bases in src/strata included."""
    names: list[str] = []
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("strata."):
            names += [name for name, value in vars(base).items() if is_member(name, value)]
            names += [name for name in annotated(base) if name.islower() and not name.startswith("_")]
    return sorted(set(names))


def is_member(name: str, value: Any) -> bool:
    if name.startswith("_") or inspect.isclass(value):
        return False
    return inspect.isroutine(value) or isinstance(value, property) or inspect.isdatadescriptor(value)


def annotated(cls: type) -> list[str]:
    return list(vars(cls).get("__annotations__", {}))


# class: the page of the reference that holds it. `None` in place of a class: it is looked up by its name.
ON_PAGE = {
    "Database": "database",
    "Branch": "database",
    "Space": "database",
    "EntityRef": "merge",
    "Spaces": "database",
    "Branches": "branches",
    "Indexes": "indexes",
    "Retention": "retention",
    "KeepAll": "retention",
    "KeepLast": "retention",
    "KeepFor": "retention",
    "Run": "runs",
    "Runs": "runs",
    "View": "view",
    "Transaction": "transaction",
    **{cls.__name__: name for name, cls in PRIMITIVES.items()},
}


def documented(page: str) -> str:
    path = REFERENCE / f"{page}.md"
    assert path.is_file(), f"write docs/reference/{page}.md"
    return path.read_text("utf-8")


def names_in_code(content: str) -> set[str]:
    """The identifiers that a page puts into code: spans and fences."""
    spans = re.findall(r"`([^`\n]+)`", content) + [fence["body"] for fence in FENCE.finditer(content)]
    return {name for span in spans for name in re.findall(r"--?[a-z][\w-]*|\w+", span)}


def public_classes() -> list[type]:
    exported = [getattr(strata, name) for name in strata.__all__ if name != "__version__"]
    return [*(value for value in exported if inspect.isclass(value)), *PRIMITIVES.values()]


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__name__)
def test_every_public_method_is_in_the_reference(cls: type) -> None:
    page = ON_PAGE.get(cls.__name__)
    assert page is not None, f"say in ON_PAGE which page of docs/reference holds {cls.__name__}"
    missing = sorted(set(members(cls)) - names_in_code(documented(page)))
    assert not missing, f"docs/reference/{page}.md does not mention {cls.__name__}: {', '.join(missing)}"


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__name__)
def test_every_public_method_has_a_docstring(cls: type) -> None:
    silent = [
        name for name in members(cls) if callable(getattr(cls, name)) and not getattr(cls, name).__doc__
    ]
    assert not silent, f"{cls.__name__} needs docstrings: {', '.join(silent)}"


def test_every_exported_name_is_in_the_reference() -> None:
    said = "\n".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    missing = [name for name in strata.__all__ if not re.search(rf"\b{name}\b", said)]
    assert not missing, f"docs/reference mentions nowhere: {', '.join(missing)}"


def test_every_error_is_in_the_reference() -> None:
    said = names_in_code(documented("errors"))
    errors = [
        value
        for value in vars(strata.errors).values()
        if inspect.isclass(value) and issubclass(value, strata.errors.StrataError)
    ]
    missing = sorted({error.__name__ for error in errors} - said)
    assert not missing, f"docs/reference/errors.md does not mention {', '.join(missing)}"
    codes = sorted({error.code for error in errors} - said - {strata.errors.StrataError.code})
    assert not codes, f"docs/reference/errors.md does not mention the codes {', '.join(codes)}"


def commands() -> dict[str, set[str]]:
    """Each command and verb of the command line, with its options."""
    from strata.cli.overview import parsers

    return {
        name: {option for action in parser._actions for option in action.option_strings if option != "-h"}
        for name, parser in parsers().items()
    }


def test_every_command_is_in_the_reference() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "cli_page.py"))["page"]()
    assert documented("cli") == made, "run: python tools/cli_page.py > docs/reference/cli.md"
    said = names_in_code(made)
    for command, options in commands().items():
        assert re.search(rf"strata {command}\b", made), f"docs/reference/cli.md has no `strata {command}`"
        missing = sorted(options - said - {"--help"})
        assert not missing, f"docs/reference/cli.md: `strata {command}` lacks {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    content = FENCE.sub("", page.read_text("utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        place = target.split("#")[0]
        if place and "://" not in place and not os.path.exists(page.parent / place):
            broken.append(target)
    assert not broken, f"{page_name(page)} links to what is not there: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_that_pages_name_exist(page: Path) -> None:
    content = page.read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    code = [fence["body"] for fence in FENCE.finditer(content) if fence["kind"] in ("", "sh", "console")]
    code += re.findall(r"`([^`\n]+)`", FENCE.sub("", content))
    named = {name for span in code for name in re.findall(r"^\$? ?make ([a-z-]+)", span, re.M)}
    assert named <= targets, f"{page_name(page)}: no such make target: {sorted(named - targets)}"
    verbs = {name for span in code for name in re.findall(r"^\$? ?strata ([a-z][a-z-]*)", span, re.M)}
    known = {name.split()[0] for name in commands()} | {"version", "completion"}
    assert verbs <= known, f"{page_name(page)}: no such command: {sorted(verbs - known)}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "zensical.toml").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    missing = sorted(page for page in pages if f'"{page}"' not in navigation)
    assert not missing, f"zensical.toml does not list {', '.join(missing)}"
