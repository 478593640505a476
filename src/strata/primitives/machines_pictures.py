"""Machines as pictures: Mermaid text, which GitHub, JupyterLab and many editors draw, and an HTML table."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final

_MARKS: Final = {"#": "#35;", ";": "#59;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", ":": "#58;"}
_HERE: Final = "fill:#ffd866,color:#222"  # of the state that an instance is in


def mermaid(definition: dict[str, Any], state: str | None = None) -> str:
    """Return a definition as a Mermaid state diagram, with one state marked."""
    names = {name: f"s{index}" for index, name in enumerate(dict.fromkeys(definition["states"]))}
    return (
        "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _lines(definition, names, state))]) + "\n"
    )


def _lines(definition: dict[str, Any], names: dict[str, str], state: str | None) -> Iterator[str]:
    for name, short in names.items():
        yield f'state "{_label(name)}" as {short}'
    yield f"[*] --> {names[definition['initial']]}"
    left = set()
    for transition in definition["transitions"]:
        said = transition["event"] + (f" [{transition['guard']}]" if "guard" in transition else "")
        for source in dict.fromkeys(transition["from"]):
            left.add(source)
            yield f"{names[source]} --> {names[transition['to']]} : {_label(said)}"
    for name, short in names.items():
        if name not in left:
            yield f"{short} --> [*]"
    for timer in definition.get("timers", ()):
        said = _label(f"{timer['event']} after {timer['after']} s")
        for source in dict.fromkeys(timer["state"]):
            yield f"note right of {names[source]} : {said}"
    if state in names:
        yield f"classDef here {_HERE}"
        yield f"class {names[state]} here"


def _label(text: str) -> str:
    return "".join(_MARKS.get(mark, mark) for mark in " ".join(text.split()))


def html(name: str, definition: dict[str, Any]) -> str:
    """Return a definition as an HTML table, a row a transition."""
    rows = "".join(
        f"<tr><td>{escape(', '.join(step['from']))}</td><td>{escape(step['event'])}</td>"
        f"<td><code>{escape(step.get('guard', ''))}</code></td><td>{escape(step['to'])}</td></tr>"
        for step in definition["transitions"]
    )
    head = "<tr><th>from</th><th>event</th><th>guard</th><th>to</th></tr>"
    begins = f"begins in {escape(definition['initial'])}"
    return f"<table><caption>{escape(name)}, {begins}</caption>{head}{rows}</table>"
