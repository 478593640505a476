"""A chat log, or the LoCoMo conversations.

JSON lines   {"role": "user", "content": "..."} a line, as OpenAI's API has them; content may be text, a list
             of parts or null; `tool_calls`, `tool_call_id` and `name` are kept. A line that is
             {"messages": [...]} is a whole conversation.
JSON         a list of such messages, or LoCoMo: a list of {"sample_id", "conversation": {"session_1": [...]}}

key          <conversation>/<part>:<turn>, numbers with zeros in front, so that they sort as said
document     {conversation, turn, speaker, text, words} and what else the line had
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from strata.cli.demo.source import Chapter, Document, Question, Source
from strata.cli.demo.stage import Stage
from strata.core.errors import InvalidInput, NotFound

_TURNS_PER_CHAPTER = 20  # of a chat log, which has no sessions of its own
_QUESTIONS = 3
_PHRASE = 8  # words of a question
_LONG = 12  # letters: no word that is as common as that is left out of the index
_KEPT = ("tool_calls", "tool_call_id", "name")


def read(stage: Stage, file: Path) -> Source:
    """Return the conversations of `file`.

    Raises: NotFound; InvalidInput, with the line, for what is neither of the formats.
    """
    stage.headline(f"Read {file.name}")
    with stage.timed("read the file", 1, "file"):
        source = _parse(file, _text(file))
    turns = sum(len(chapter.documents) for chapter in source.chapters)
    if not turns:
        raise InvalidInput(f"{file} holds no message")
    stage.say(f"{turns:,} turns in {len(source.chapters):,} {source.chapter_noun}.")
    return source


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{file} does not exist") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None


def _parse(file: Path, text: str) -> Source:
    if not text.lstrip().startswith("["):
        return _chat(file, list(_lines(file, text)))
    rows = _json(text, str(file))
    if rows and all(isinstance(row, dict) and isinstance(row.get("conversation"), dict) for row in rows):
        return _locomo(file, rows)
    return _chat(file, [(f"{file}, message {number}", row) for number, row in enumerate(rows, 1)])


def _lines(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    # Not str.splitlines, which also splits at the Unicode line ends that JSON texts may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _json(line, where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{where} is not JSON: {error}", hint='one message a line: {"role": "user", "content": "Hello"}'
        ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _chat(file: Path, rows: list[tuple[str, Any]]) -> Source:
    chapters: list[Chapter] = []
    loose: list[Document] = []
    for where, row in rows:
        if isinstance(row, dict) and isinstance(row.get("messages"), list):
            name = f"conversation-{len(chapters) + 1:04}"
            chapters.append(_chapter(name, [_message(where, message) for message in row["messages"]]))
        else:
            loose.append(_message(where, row))
    for start in range(0, len(loose), _TURNS_PER_CHAPTER):
        name = f"{file.stem}/{start // _TURNS_PER_CHAPTER + 1:04}"
        chapters.append(_chapter(name, loose[start : start + _TURNS_PER_CHAPTER]))
    return _source(f"the chat log {file.name}", chapters, "parts")


def _message(where: str, row: Any) -> Document:
    if not isinstance(row, dict) or not isinstance(row.get("role"), str):
        raise InvalidInput(f'{where} is no message: it needs a "role"', hint="see strata demo --help")
    kept = {name: row[name] for name in _KEPT if row.get(name) is not None}
    return _turn(row["role"], _content(where, row.get("content")), kept)


def _content(where: str, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(str(part["text"]) for part in content if "text" in part)
    raise InvalidInput(f'{where}: "content" is neither a text, nor a list of parts, nor null')


def _turn(speaker: str, text: str, rest: Document) -> Document:
    return {"speaker": speaker, "text": text, "words": len(text.split()), **rest}


def _chapter(name: str, turns: list[Document]) -> Chapter:
    documents = {
        f"{name}:{number:05}": {"conversation": name, "turn": number, **turn}
        for number, turn in enumerate(turns, 1)
    }
    return Chapter(name, documents)


def _locomo(file: Path, rows: list[Any]) -> Source:
    chapters = [chapter for number, row in enumerate(rows, 1) for chapter in _sessions(file, number, row)]
    return _source(f"the conversations of {file.name}", chapters, "sessions")


def _sessions(file: Path, number: int, row: dict[str, Any]) -> Iterator[Chapter]:
    conversation, sample = row["conversation"], row.get("sample_id", f"conversation-{number}")
    for key in sorted(conversation, key=_session_number):
        if _session_number(key) and isinstance(conversation[key], list):
            said_at = {"when": conversation.get(f"{key}_date_time")}
            turns = [_locomo_turn(f"{file}, {sample}, {key}", turn, said_at) for turn in conversation[key]]
            yield _chapter(f"{sample}/{_session_number(key):02}", turns)


def _session_number(key: str) -> int:
    found = re.fullmatch(r"session_(\d+)", key)
    return int(found[1]) if found else 0


def _locomo_turn(where: str, turn: Any, said_at: Document) -> Document:
    if not isinstance(turn, dict) or not isinstance(turn.get("speaker"), str) or "text" not in turn:
        raise InvalidInput(f'{where} has a turn without "speaker" and "text"')
    rest = {"id": turn.get("dia_id"), **said_at, "caption": turn.get("blip_caption")}
    return _turn(turn["speaker"], str(turn["text"]), {name: value for name, value in rest.items() if value})


def _source(title: str, chapters: list[Chapter], chapter_noun: str) -> Source:
    return Source(title, chapters, "text", "turns", chapter_noun, _questions(chapters))


def _questions(chapters: list[Chapter]) -> list[Question]:
    """Return phrases of turns here and there that only one turn has; none where there is no such thing."""
    texts = {key: _words(turn["text"]) for chapter in chapters for key, turn in chapter.documents.items()}
    keys = [key for key, words in texts.items() if any(len(word) >= _LONG for word in words)]
    found = (_question(key, texts) for key in keys[:: max(1, len(keys) // (2 * _QUESTIONS))])
    return list(islice((question for question in found if question), _QUESTIONS))


def _question(key: str, texts: dict[str, list[str]]) -> Question | None:
    words = texts[key]
    longest = words.index(max(words, key=len))
    phrase = " ".join(words[max(0, longest - _PHRASE // 2) :][:_PHRASE])
    alone = sum(f" {phrase} " in f" {' '.join(other)} " for other in texts.values()) == 1
    # Others may have the same words in other forms, and then be found before it.
    return Question(f'"{phrase}"', key, within=100) if alone else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
