"""Who speaks, in which way, and with which rights; and what the server is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from strata.api.opening import version
from strata.core.errors import AccessDenied
from strata.server.rcp import params
from strata.server.rcp.errors import Refused
from strata.server.rcp.frames import PAYLOAD_BYTES_MAX
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.session import Session

PROTOCOL: Final = 1
FEATURES: Final = ("idempotency", "batch", "wal_read")
MODES: Final = ("binary_json", "jsonl")
_OPS_MAX: Final = 100  # of a batch
_SEGMENT_BYTES: Final = 64 << 20  # of the log


def hello(session: Session, asked: params.Hello) -> Result:
    if asked.protocol_version != PROTOCOL:
        message = f"protocol {asked.protocol_version} is not spoken here, only {PROTOCOL}"
        raise Refused("UNSUPPORTED_PROTOCOL", message, {"supported": [PROTOCOL]})
    # Who says one mode instead of a list cannot read null where a number may be.
    session.omits_nulls = asked.wire_mode is not None
    wanted = [*(asked.wire_modes or ()), *filter(None, [asked.wire_mode])]
    known = FEATURES if asked.features is None else asked.features
    return {
        "protocol_version": PROTOCOL,
        "wire_mode": next((mode for mode in wanted if mode in MODES), MODES[0]),
        "server_name": "strata",
        "server_version": version(),
        "features": [feature for feature in FEATURES if feature in known],
    }


def auth(session: Session, asked: params.Auth) -> Result:
    """Let a token count from here on. One that does not changes nothing."""
    if asked.method not in (None, "bearer"):
        raise Refused("AUTH_FAILED", f"there is no method {asked.method!r} here, only bearer")
    if not asked.token:
        raise Refused("AUTH_FAILED", "a token is a text that is not empty")
    try:
        session.let_in(asked.token)
    except AccessDenied as error:
        raise Refused("AUTH_FAILED", str(error)) from None
    return {"authenticated": True}


def ping(session: Session, asked: params.Nothing) -> Result:
    return {"pong": True}


def bye(session: Session, asked: params.Nothing) -> Result:
    session.is_over = True
    return {"goodbye": True}


def info(session: Session, asked: params.Nothing) -> Result:
    said: dict[str, Any] = {
        "server_name": "strata",
        "server_version": version(),
        "protocol_version": PROTOCOL,
        "features": FEATURES,
        "max_frame_bytes": PAYLOAD_BYTES_MAX,
        "max_payload_bytes": PAYLOAD_BYTES_MAX,
        "max_batch_ops": _OPS_MAX,
        "wal_segment_size": _SEGMENT_BYTES,
        "auth_required": session.needs_token,
    }
    return said


TABLE: Final = (
    Operation("HELLO", None, params.Hello, hello),
    Operation("AUTH", None, params.Auth, auth),
    Operation("PING", None, params.Nothing, ping),
    Operation("BYE", None, params.Nothing, bye),
    Operation("INFO", "read", params.Nothing, info),
)
