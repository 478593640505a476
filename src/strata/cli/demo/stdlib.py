"""The documentation strings of the standard library that runs us, read from its source files.

    key       json.decoder:JSONDecoder.decode      (json.decoder:__doc__ for the module itself)
    document  {module, name, kind, signature, doc, words, lines: {first, last}}

The sources are parsed, never imported: importing all of the standard library opens browsers and windows.
"""

from __future__ import annotations

import ast
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from strata.cli.demo.source import Chapter, Document, Question, Source
from strata.cli.demo.stage import Stage
from strata.core.errors import NotFound

# Not the library's own: tests, programs, other people's packages.
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip",
                       "site-packages", "dist-packages", "__pycache__"})  # fmt: skip
# With --quick, these packages: well known, and about a tenth of all.
_QUICK = frozenset({"json", "email", "asyncio", "collections", "concurrent", "http", "logging", "urllib"})

# No model reads them: the words count that question and answer share.
_QUESTIONS = [
    Question("How do I join a relative URL to its base?", "urllib.parse:urljoin"),
    Question("What lists the most common elements and their counts?", "collections:Counter.most_common"),
    Question("How do I run a function asynchronously in a separate thread?", "asyncio.threads:to_thread"),
    Question("How do I remove common leading whitespace from every line?", "textwrap:dedent"),
]
_MISSPELT = Question("seprate thread", "asyncio.threads:to_thread")

_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def read(stage: Stage, quick: bool) -> Source:
    """Return each module of the standard library that documents something, as one chapter."""
    title = f"the documentation strings of Python {platform.python_version()}'s standard library"
    stage.headline(f"Read {title}")
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(root.rglob("*.py")) if _wanted(file.relative_to(root).parts, quick)]
    with stage.timed("read the sources", len(files), "files"):
        chapters = [chapter(root, file) for file in stage.progress(files, len(files), "files")]
    chapters = [found for found in chapters if found.documents]
    documented = {key for found in chapters for key in found.documents}
    questions = [question for question in _QUESTIONS if question.key in documented]
    misspelt = _MISSPELT if _MISSPELT.key in documented else None
    source = Source(title, chapters, "doc", "objects", "modules", questions, misspelt)
    if not source.chapters:
        raise NotFound(
            f"this Python has no sources of its standard library in {root}",
            hint="give a text of your own: strata demo --input chat.jsonl",
        )
    found = f"{len(source.documents):,} modules, classes and functions with a documentation string"
    stage.say(f"{found}, in {len(files):,} files.")
    return source


def _wanted(parts: tuple[str, ...], quick: bool) -> bool:
    return not _LEFT_OUT.intersection(parts) and (not quick or parts[0] in _QUICK)


def chapter(root: Path, file: Path) -> Chapter:
    """Return what the module in `file` documents; nothing when it cannot be parsed."""
    parts = file.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings; they are not ours to mend
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return Chapter(module, {})
    # A name that is defined twice, as in `if` and `else`, keeps its last definition, as in the module itself.
    return Chapter(
        module, {f"{module}:{document['name']}": document for document in _documents(tree, module)}
    )


def _documents(tree: ast.Module, module: str) -> Iterator[Document]:
    if doc := ast.get_docstring(tree):
        yield _document(module, "__doc__", "module", "", doc, 1, max(1, tree.body[-1].end_lineno or 1))
    yield from _members(tree.body, module, "", "function")


def _members(body: list[ast.stmt], module: str, prefix: str, kind: str) -> Iterator[Document]:
    """Walk classes, and functions from outside, also below `if` and `try`."""
    for node in body:
        if isinstance(node, _Documented):
            yield from _member(node, module, f"{prefix}{node.name}", kind)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _members(node.body, module, prefix, kind)
            yield from _members(getattr(node, "orelse", []), module, prefix, kind)


def _member(node: _Documented, module: str, name: str, kind: str) -> Iterator[Document]:
    is_class = isinstance(node, ast.ClassDef)
    if doc := ast.get_docstring(node):
        signature = _signature(node)
        yield _document(
            module,
            name,
            "class" if is_class else kind,
            signature,
            doc,
            node.lineno,
            node.end_lineno or node.lineno,
        )
    if is_class:
        yield from _members(node.body, module, f"{name}.", "method")


def _signature(node: _Documented) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{prefix}{node.name}({ast.unparse(node.args)}){returns}"


def _document(module: str, name: str, kind: str, signature: str, doc: str, first: int, last: int) -> Document:
    # A docstring may hold a lone surrogate ("\ud800"), which is no Unicode text and has no UTF-8.
    doc = doc.encode("utf-8", "replace").decode()
    return {
        "module": module,
        "name": name,
        "kind": kind,
        "signature": signature,
        "doc": doc,
        "words": len(doc.split()),
        "lines": {"first": first, "last": last},
    }
