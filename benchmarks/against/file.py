"""A plain file: append 120 bytes, then fdatasync. What one durable write costs on this disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.system import Rows, System

sync = getattr(os, "fdatasync", os.fsync)


class File(System):
    name: ClassVar[str] = "file"
    modes: ClassVar[dict[str, str]] = {
        "buffered": "one write() a put",
        "strict": "write() and fdatasync() a put",
    }

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        self.fd = os.open(path / "file.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def close(self) -> None:
        os.close(self.fd)

    def key(self, text: str) -> bytes:
        return text.encode()

    def put(self, rows: Rows) -> None:
        strict = self.mode == "strict"
        for key, value in rows:
            os.write(self.fd, key + value)
            if strict:
                sync(self.fd)

    def put_many(self, rows: Rows) -> None:
        os.write(self.fd, b"".join(key + value for key, value in rows))
        if self.mode == "strict":
            sync(self.fd)
