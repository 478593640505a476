"""Signatures of messages, as Standard Webhooks 1.0 has them, so that its libraries verify them.

    webhook-id          the same however often a message is sent
    webhook-timestamp   of this attempt, in seconds since 1970
    webhook-signature   "v1," and the base64 of HMAC-SHA256 of "ID.TIMESTAMP.BODY"; after a space, another one

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Final

from strata.api.webhooks import key_of
from strata.core.errors import InvalidInput

TOLERANCE_S: Final = 300.0


def signed(id: str, timestamp: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """Return the headers of a message."""
    signatures = " ".join(_signature(id, str(timestamp), body, secret) for secret in secrets)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> str:
    """Return the id of a message that was signed with `secret` just now. For receivers in Python.

    Args:
        headers: of the request, in any case.
        tolerance_s: how old it may be, or how far in the future.
    Raises: InvalidInput for any other.
    """
    found = {name.lower(): value for name, value in headers.items()}
    id, timestamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    expected = _signature(id, timestamp, body, secret).encode()
    given = found.get("webhook-signature", "").encode().split()
    if not id or not any(hmac.compare_digest(expected, signature) for signature in given):
        raise InvalidInput("the signature is not of this message and secret")
    now = time.time() if now_s is None else now_s
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > tolerance_s:
        raise InvalidInput("the message was signed too long ago, or in the future")
    return id


def _signature(id: str, timestamp: str, body: bytes, secret: str) -> str:
    said = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), said, hashlib.sha256)).decode()
