"""Receivers of webhooks, for tests: a transport that only remembers, and an HTTP server on this machine."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from strata.worker import Answer, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://example.com/hooks"


class Remembers:
    """A transport: `got` has what was delivered, `tried` every attempt; `answers` says what a key gets."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int]] = []
        self.tried: list[dict[str, Any]] = []
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}

    def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        message = json.loads(body)
        key, version = message["data"]["key"], message["data"]["version"]
        self.tried.append({"url": url, "id": headers["webhook-id"], "headers": headers, **message})
        answer = self.answers.get(key, self.answers.get("*", Answer(200, None)))
        answer = answer() if callable(answer) else answer
        if answer.is_ok:
            self.got.append((key, version))
        return answer

    def of(self, key: str) -> list[int]:
        """The versions of a thing that were delivered, in their order."""
        return [version for found, version in self.got if found == key]


def failing(status: int = 500, retry_after_s: float | None = None) -> Answer:
    return Answer(status, f"it answered {status}", retry_after_s)


class Receiver:
    """What an HTTP server was sent, checked: `messages`, and the `ids` in their order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.messages: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.arrived = threading.Condition()
        self._victim: tuple[int, int, str] | None = None

    def wait(self, count: int) -> list[dict[str, Any]]:
        """Return the messages, once there are so many."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, 30), self.messages
        return self.messages

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once something is so. It is looked at again and again, and when a message comes."""
        with self.arrived:
            for _ in range(3000):
                if condition():
                    return
                self.arrived.wait(0.01)
        raise AssertionError("it did not come to that")

    def kill(self, process: int, count: int, when: str) -> None:
        """Kill a process at the message that makes it so many, "before" or "after" that is answered."""
        with self.arrived:
            self._victim = process, count, when
            self._strike("after")

    def _strike(self, when: str) -> None:
        if self._victim is not None:
            process, count, wanted = self._victim
            if len(self.ids) >= count and when == wanted:
                self._victim = None
                os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def receiving(secret: str = SECRET, port: int = 0) -> Iterator[Receiver]:
    """A receiver that verifies signatures, on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            id = verify(secret, self.headers, body)
            with found.arrived:
                found.ids.append(id)
                found.messages.append(json.loads(body))
                found.arrived.notify_all()
                found._strike("before")
            self.send_response(204)
            self.end_headers()
            with found.arrived:
                found._strike("after")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/hooks")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
