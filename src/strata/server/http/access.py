"""Access: who may do what. Every request passes `check` here, and nothing else decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from strata.api.operations import Access, Operation
from strata.core.errors import AccessDenied, ReadOnly
from strata.server.http.web import Headers

Role = Literal["read", "write", "admin"]
Authorize = Callable[[str | None], Role]
_RANK: Final[dict[str, int]] = {"read": 0, "write": 1, "admin": 2}


class Gate:
    """What tokens allow, and what is allowed to nobody."""

    def __init__(self, authorize: Authorize | None, read_only: bool, files: bool) -> None:
        self._authorize = authorize
        self._read_only = read_only
        self._files = files

    @property
    def is_open(self) -> bool:
        """Whether everybody who gets here may do everything."""
        return self._authorize is None

    def role(self, headers: Headers) -> Role:
        """Return what the token of a request allows.

        Raises: AccessDenied for a token that is missing, unknown or no longer good.
        """
        if self._authorize is None:
            return "admin"
        role = self._authorize(_token(headers))
        if role not in _RANK:
            raise RuntimeError(f"authorize returned {role!r}, which is no role")
        return role

    def check(self, role: Role, operation: Operation, request: Struct | None = None) -> None:
        """Let a request through.

        Args:
            request: None as long as it was not read; it may need more than its operation does.
        Raises: AccessDenied when the role allows less than it needs, and for names of files; ReadOnly.
        """
        self.check_access(role, operation.access_for(request))
        if operation.names_files and not self._files:
            raise AccessDenied(
                f"{operation.name} names a file of the server's machine, which is not allowed from afar",
                needed="files", given=role, hint="run it there, or let the server allow files",
            )  # fmt: skip

    def check_access(self, role: Role, needed: Access) -> None:
        """Let through what needs this access, and is no operation."""
        if _RANK[role] < _RANK[needed]:
            raise AccessDenied(needed=needed, given=role)
        if self._read_only and needed != "read":
            raise ReadOnly("this server does not write", hint="write where the database is")


def _token(headers: Headers) -> str | None:
    """Return the bearer token of a request; None where there is none."""
    given = headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise AccessDenied(
            "the Authorization header is not one bearer token",
            needed="read", given="nothing", hint="Authorization: Bearer TOKEN",
        )  # fmt: skip
    return token.strip()
