"""The fixture that runs a row of the fault matrix as a program, and tells of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crash import private, rows


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Run a program of this directory; its last line is shown at the end of the whole run."""

    def run(module: str, *arguments: object) -> None:
        done = rows.program(module, *map(str, arguments))
        lines = done.stdout.splitlines() or [""]
        record_property("row", lines[-1])
        if done.returncode == private.CANNOT:
            pytest.skip(lines[-1])
        assert done.returncode == 0, done.stdout[-4000:]

    return run
