"""What the agent of the demo reads: chapters of documents.

A document's key is "<chapter>:<the rest>", so one prefix holds one chapter. Its text stands at `Source.text`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Documents that are learned together, in one commit."""

    name: str
    documents: dict[str, Document]

    @property
    def prefix(self) -> str:
        """What the keys of its documents begin with."""
        return f"{self.name}:"


@dataclass(frozen=True, slots=True)
class Question:
    """Words to search for, and the document that answers: among the first `within` that are found."""

    text: str
    key: str
    within: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A text to study, and what its parts are called."""

    title: str
    chapters: list[Chapter]
    text: str  # the member of a document that holds its text
    document_noun: str  # in the plural
    chapter_noun: str  # in the plural
    questions: list[Question] = field(default_factory=list)
    misspelt: Question | None = None

    @property
    def documents(self) -> dict[str, Document]:
        """All documents by key."""
        return {key: document for chapter in self.chapters for key, document in chapter.documents.items()}
