"""Chat transcripts as events and traces: messages as the API of OpenAI has them, with tool calls.

    message                          an event "message", as it is, at the end of a stream
    conversation                     a trace `custom` named "conversation", the root of what follows
      assistant message              a trace `thought`; its output is the content
        tool call                    a trace `tool_call`: name, arguments, and what the tool message said

Traces of messages have ids <conversation>/000012, and of calls <conversation>/000012/1, with the place of the
message and of the call; each writes the event of its message. The id of a conversation that is given none is
a digest of its messages, so the same again is found to be there.

A document is a list of messages, a map with such a list as `messages`, or, in a file of lines, a message or
such a map a line. Lines with messages are one conversation together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from strata.api.documents import Part, cut
from strata.core.clock import to_datetime, to_micros
from strata.core.errors import InvalidInput
from strata.core.keys import MAX_NAME_BYTES
from strata.core.values import canonical

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_ANSWERS: Final = ("tool", "function")
_YEARS_S: Final = 253_402_300_800  # up to the year 9999


@dataclass(slots=True)
class Call:
    """A call of a tool that a message asks for."""

    name: str
    input: Any
    key: str  # by which its answer finds it
    answer: int | None = None  # place of the message that answers
    output: Any = None


@dataclass(slots=True)
class Message:
    """A message, its time if it has one, and what it calls."""

    payload: dict[str, Any]
    role: str
    time_us: int | None
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """Messages that belong together."""

    id: str
    digest: str
    messages: list[Message]


def read_conversations(documents: list[Part], id: str | None, time_field: str | None) -> list[Conversation]:
    """Return the conversations of all documents.

    Raises: InvalidInput, naming line and field.
    """
    groups: list[list[Part]] = []
    lines: list[Part] = []
    for document in documents:
        if type(document.value) is list:
            groups.append(document.items())
        elif "messages" in document.map():
            groups.append(document["messages"].items())
        else:
            if not lines:
                groups.append(lines)
            lines.append(document)
    found = [_conversation(group, time_field) for group in groups if group]
    if id is not None:
        if len(found) > 1:
            raise InvalidInput(
                f"an id is for one conversation, and {documents[0].where} begins {len(found)} of them",
                hint="leave out the id",
            )
        for conversation in found:
            conversation.id = id
    return found


def _conversation(parts: list[Part], time_field: str | None) -> Conversation:
    messages: list[Message] = []
    waiting: dict[str, Call] = {}  # calls without an answer
    for number, part in enumerate(parts):
        message = _message(part, time_field)
        for key, call in zip(message.calls, _keys(part, message), strict=True):
            if call in waiting:
                part["tool_calls"].fail(f"calls again under an id that waits for its answer: {call!r}")
            waiting[call] = key
        if message.role in _ANSWERS:
            answered = _answered(part, message.role, waiting)
            answered.answer, answered.output = number, message.payload.get("content")
        messages.append(message)
    digest = hashlib.sha256(canonical([message.payload for message in messages])).hexdigest()
    return Conversation(digest[:32], digest, messages)


def _message(part: Part, time_field: str | None) -> Message:
    payload = part.map()
    role = part["role"].text()
    if role not in ROLES:
        part["role"].fail(f"is none of {', '.join(ROLES)}: {role[:40]!r}" if role else "is missing")
    part.check(finite=True)
    content = part["content"]
    if type(content.value) is list:
        for piece in content.items():
            if not piece["type"].text():
                piece["type"].fail("is missing")
    else:
        content.text()
    calls = [_call(call) for call in part["tool_calls"].items()]
    old = part["function_call"]  # what tool_calls was before
    if old.given:
        calls.append(_named(old, old, "arguments", "\0" + old["name"].text()))
    if (calls or part["tool_calls"].given) and role != "assistant":
        part["tool_calls"].fail(f"is for assistants, not for the role {role!r}")
    if not calls and not content.given and not part["refusal"].given:
        content.fail("is missing")
    time = None if time_field is None else _time(part[time_field])
    return Message(payload, role, time, calls)


def _call(part: Part) -> Call:
    id = part["id"].text()
    if not id:
        part["id"].fail("is missing")
    kind = part["type"].text("function")
    if kind == "custom":
        return _named(part, part["custom"], "input", id)
    if kind != "function":
        part["type"].fail(f"is neither 'function' nor 'custom': {kind[:40]!r}")
    return _named(part, part["function"], "arguments", id)


def _named(part: Part, of: Part, arguments: str, key: str) -> Call:
    name = of["name"].text()
    if not name:
        of["name"].fail("is missing")
    given = of[arguments]
    if type(given.value) is dict:  # as some libraries have it
        return Call(name, given.value, key)
    text = given.text()
    return Call(name, _decoded(text) if arguments == "arguments" else text, key)


def _decoded(text: str) -> Any:
    """Return the arguments, or the text itself where a model did not write JSON."""
    try:
        value = json.loads(text, parse_constant=lambda _: text)
        Part(value, "").check(finite=True)
    except (ValueError, RecursionError):
        return text
    return value


def _keys(part: Part, message: Message) -> list[str]:
    return [call.key for call in message.calls]


def _answered(part: Part, role: str, waiting: dict[str, Call]) -> Call:
    """Return the call that a message answers, which waits no more."""
    field, key = ("tool_call_id", part["tool_call_id"].text())
    if role == "function":
        field, key = "name", "\0" + part["name"].text()
    if key not in waiting:
        part[field].fail(f"answers no call that waits: {key.strip(chr(0))[:80]!r}" if key else "is missing")
    return waiting.pop(key)


def _time(part: Part) -> int | None:
    """Return a time as exporters write it: seconds since 1970, or ISO 8601 with an offset."""
    value = part.value
    if value is None:
        return None
    if type(value) in (int, float) and 0 <= value < _YEARS_S:
        micros: int = round(value * 1_000_000)
        return micros
    if type(value) is str:
        try:
            return to_micros(value)
        except InvalidInput as error:
            part.fail(error.message, hint=error.hint)
    part.fail(f"is no time: {str(value)[:40]!r}", hint="seconds since 1970, or ISO 8601 with an offset")


def trace_rows(conversation: Conversation, first: int, now: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (place of the message, arguments of `traces.record`), parents first.

    Args:
        first: sequence of the first message's event.
    """
    root, messages = conversation.id, conversation.messages
    times: list[datetime] = []
    for message in messages:  # one without a time has that of the one before
        before = times[-1] if times else to_datetime(now)
        times.append(before if message.time_us is None else to_datetime(message.time_us))
    kept = {"digest": conversation.digest, "messages": len(messages), "first_event": first}
    yield 0, {"kind": "custom", "name": "conversation", "id": root, "started": times[0], "metadata": kept}
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        id = f"{root}/{number:06}"
        yield number, {
            "kind": "thought", "id": id, "parent": root, "started": times[number],
            "output": message.payload.get("content") or message.payload.get("refusal"),
        }  # fmt: skip
        for place, call in enumerate(message.calls):
            yield number if call.answer is None else call.answer, {
                "kind": "tool_call", "name": cut(call.name, MAX_NAME_BYTES) or "tool", "id": f"{id}/{place}",
                "parent": id, "started": times[number], "input": call.input, "output": call.output,
                "ended": _end(times, number, call.answer),
            }  # fmt: skip


def _end(times: list[datetime], asked: int, answered: int | None) -> datetime | None:
    if answered is None:
        return None
    return max(times[asked], times[answered])
