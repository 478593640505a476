"""A process of its own for one action of a case. Prints one JSON object.

python -m benchmarks.child CASE ACTION SYSTEM PATH ARGUMENTS
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.registry import find
from benchmarks.system import Absent


def main(case: str, action: str, system: str, path: str, arguments: str) -> dict[str, Any]:
    adapter = find(system)  # imported before any clock or baseline
    module = importlib.import_module(f"benchmarks.cases.{case}")
    found: dict[str, Any] = module.ACTIONS[action](adapter, Path(path), **json.loads(arguments))
    return found


if __name__ == "__main__":
    try:
        result = main(*sys.argv[1:])
    except Absent as why:
        result = {"absent": str(why)}
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # taking a million objects apart again would only cost time
