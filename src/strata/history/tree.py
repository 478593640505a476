"""Trees: an explanation as text, and as HTML to unfold.

Everything that comes from the data goes through `one_line` in text, and is escaped as well in HTML, so that
neither a terminal nor a browser takes it for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Final

from strata.core.values import one_line, text_of
from strata.history.replay import head_of
from strata.primitives import PRIMITIVES

if TYPE_CHECKING:
    from strata.history.explain import Explanation

_ROLES: Final = {
    "": "",
    "read": "had read ",
    "cause": "because of ",
    "merged": "merged ",
    "before": "where there was ",
}
_SAID: Final = {
    "removed": "removed",
    "expired": "expired",
    "absent": "nothing",
    "trimmed": "not known any more",
    "unknown": "not known",
}


def text_of_tree(root: Explanation) -> str:
    """Return a line for what is explained, and below it what is known of it."""
    lines: list[str] = []
    open_ = [(root, "", "")]  # what stands before its first line, and before those below
    while open_:
        node, first, rest = open_.pop()
        lines.append(first + title_of(node))
        bar = "│ " if node.causes else "  "
        lines += [rest + bar + line for line in details_of(node)]
        below = [(cause, f"{rest}├─ ", f"{rest}│  ") for cause in node.causes[:-1]]
        below += [(cause, f"{rest}└─ ", f"{rest}   ") for cause in node.causes[-1:]]
        open_ += reversed(below)
    if root.truncated:
        lines.append("(more was left out, as the limit is reached)")
    return "\n".join(lines)


def html_of(root: Explanation) -> str:
    """Return the tree as nested lists that can be folded."""
    more = "<p>(more was left out, as the limit is reached)</p>" if root.truncated else ""
    return f'<div class="strata-explanation">{_html(root)}{more}</div>'


def _html(node: Explanation) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in details_of(node))
    causes = "".join(f"<li>{_html(cause)}</li>" for cause in node.causes)
    title = f"<code>{escape(title_of(node))}</code>"
    if not lines and not causes:
        return title
    return f"<details open><summary>{title}</summary><ul>{lines}{causes}</ul></details>"


def title_of(node: Explanation) -> str:
    """Return what is explained, on a line."""
    said = _ROLES[node.role]
    if node.ref is None:
        return said + one_line(node.label)
    if node.found != "value":
        return f"{said}{one_line(str(node.ref))}: {_SAID[node.found]}"
    primitive = PRIMITIVES[node.ref.primitive]
    shown = text_of(node.value) if node.ref.path is not None else primitive._line(node.value)
    return f"{said}{one_line(str(node.ref))} = {one_line(shown)}"


def details_of(node: Explanation) -> Iterator[str]:
    """Yield what is known of it, line by line."""
    if node.commit is not None:
        yield f"{node.action} by {head_of(node.commit)}" if node.action else head_of(node.commit)
    for event in node.events:
        yield one_line(f"event {event.stream}/{event.sequence} {PRIMITIVES['events']._line(event)}")
    for trace in node.traces:
        yield one_line(f"trace {trace.id} {PRIMITIVES['traces']._line(trace)}")
    for trace in node.named_by:
        yield one_line(f"named by trace {trace.id} {PRIMITIVES['traces']._line(trace)}")
    if node.also_wrote:
        yield one_line("also wrote " + ", ".join(f"{ref.primitive} {ref.key}" for ref in node.also_wrote))
    for gap in node.unknown:
        yield one_line(f"not known: {gap}")
    if node.again:
        yield "(explained elsewhere in this tree)"
    if not node.followed:
        yield "(not followed further)"
    if node.left_out:
        yield f"({node.left_out} more left out)"
