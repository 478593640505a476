"""Run the fast tests of Python, kernel and simulation one after the other, and end with one line for all.

A part that fails does not stop the next. The last line reads `N passed, N failed, N skipped`; the exit
status is 0 only when every part ended well.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

CARGO = ["--quiet", "--release", "--locked", "--manifest-path", "kernel/Cargo.toml"]
WORDS = ("passed", "failed", "skipped")
ALIASES = {"error": "failed", "errors": "failed", "xpassed": "failed", "xfailed": "skipped"}
PYTEST_TOTAL = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")
CARGO_TOTAL = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Part:
    name: str
    command: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    status: int = 0
    seconds: float = 0.0

    def run(self) -> None:
        """Run it, showing its output as it comes, and count what it says it did."""
        print(f"\n=== {self.name}: {' '.join(self.command)}", flush=True)
        start = time.monotonic()
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, errors="replace")
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            self._count(COLOUR.sub("", line))
        self.status = process.wait()
        self.seconds = time.monotonic() - start
        if self.status and not self.counts["failed"]:
            self.counts["failed"] += 1  # it did not get as far as counting: a build error, say

    def _count(self, line: str) -> None:
        if match := CARGO_TOTAL.match(line):
            for word, number in zip(WORDS, match.groups(), strict=True):
                self.counts[word] += int(number)
        elif " in " in line and line.rstrip().rstrip("= ").endswith(("s", ")")):
            for number, word in PYTEST_TOTAL.findall(line):
                self.counts[ALIASES.get(word, word)] += int(number)


def main(arguments: list[str]) -> int:
    python = [sys.executable, "-m", "pytest", "-n", "auto", "--maxprocesses", "8"]
    if sys.stdout.isatty():
        python.append("--color=yes")
    parts = [
        Part("python", python + arguments),
        Part(
            "kernel",
            ["cargo", "test", *CARGO, "-p", "strata-index", "-p", "strata-kernel", "-p", "strata-sim"],
        ),
        Part("simulation", ["cargo", "run", *CARGO, "-p", "strata-sim", "--", "--quick"]),
    ]
    for part in parts:
        part.run()
    simulation = parts[-1]
    if not simulation.status:
        simulation.counts["passed"] += 1  # it stops at the first image that does not reopen as it must

    total = sum((part.counts for part in parts), Counter())
    print()
    for part in parts:
        said = ", ".join(f"{part.counts[word]} {word}" for word in WORDS if part.counts[word])
        print(f"{part.name:12}{said or 'nothing ran':32}{part.seconds:7.1f} s")
    print(", ".join(f"{total[word]} {word}" for word in WORDS))
    return 1 if any(part.status for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
