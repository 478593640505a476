"""The stub `_kernel.pyi` and the built module say the same: names, kinds and parameters, both ways."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STUB = Path(__file__).resolve().parent.parent / "src" / "strata" / "_kernel.pyi"
CURE = "change kernel/strata-python or src/strata/_kernel.pyi so that they agree"
# Of PyO3 or of every object, not of the border.
IGNORED = {"__module__", "__doc__", "__weakref__", "__all__"}


@pytest.fixture(scope="module")
def kernel() -> ModuleType:
    return importlib.import_module("strata._kernel")


def stub_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class body defines, imports left out."""
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


MODULE = stub_names(ast.parse(STUB.read_text("utf-8")).body)
CLASSES = {name: node for name, node in MODULE.items() if isinstance(node, ast.ClassDef)}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def stub_parameters(node: ast.FunctionDef) -> list[tuple[str, str, bool]]:
    """(name, kind, has a default) of each parameter, without self and cls."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    found = [
        (
            argument.arg,
            "positional only" if number < len(given.posonlyargs) else "positional",
            number >= required,
        )
        for number, argument in enumerate(positional)
    ]
    found += [
        (argument.arg, "keyword only", default is not None)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [parameter for parameter in found if parameter[0] not in ("self", "cls")]


def built_parameters(function: Any) -> list[tuple[str, str, bool]]:
    kinds = {
        inspect.Parameter.POSITIONAL_ONLY: "positional only",
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
        inspect.Parameter.KEYWORD_ONLY: "keyword only",
    }
    return [
        (parameter.name, kinds.get(parameter.kind, "rest"), parameter.default is not parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls")
    ]


def decorated(node: ast.stmt, name: str) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(decorator, ast.Name) and decorator.id == name for decorator in decorators)


def test_module_names_agree(kernel: ModuleType) -> None:
    built = {name for name in vars(kernel) if is_public(name)}
    stub = {name for name in MODULE if is_public(name)}
    assert not built - stub, f"in the module, not in the stub: {sorted(built - stub)}; {CURE}"
    assert not stub - built, f"in the stub, not in the module: {sorted(stub - built)}; {CURE}"
    assert isinstance(kernel.__version__, str)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_members_agree(kernel: ModuleType, name: str) -> None:
    built = {member for member in vars(getattr(kernel, name)) if is_public(member)}
    stub = {member for member in stub_names(CLASSES[name].body) if is_public(member)}
    assert not built - stub, f"{name} has {sorted(built - stub)}, the stub has not; {CURE}"
    assert not stub - built, f"the stub of {name} has {sorted(stub - built)}, the module has not; {CURE}"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_signatures_agree(kernel: ModuleType, name: str) -> None:
    wrong = []
    for member, node in stub_names(CLASSES[name].body).items():
        if not isinstance(node, ast.FunctionDef) or member in IGNORED:
            continue
        built = vars(getattr(kernel, name)).get(member)
        if built is None:
            continue  # test_members_agree has said so
        if decorated(node, "property"):
            if not inspect.isdatadescriptor(built):
                wrong.append(f"{name}.{member} is a property in the stub only")
            continue
        target = getattr(kernel, name) if member == "__new__" else getattr(getattr(kernel, name), member)
        said, is_ = stub_parameters(node), built_parameters(target)
        if said != is_:
            wrong.append(f"{name}.{member}: the stub says {said}, the module {is_}")
    assert not wrong, "\n".join([*wrong, CURE])
