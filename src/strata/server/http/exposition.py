"""Exposition: samples as the text that Prometheus reads.

Source: the exposition format 0.0.4 of Prometheus; a line is `name{label="value"} number`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[Labels, float]


def counter(name: str, says: str, samples: Samples) -> Iterator[str]:
    """Yield a number that only rises."""
    yield from _metric("counter", name, says, samples)


def gauge(name: str, says: str, samples: Samples) -> Iterator[str]:
    """Yield a number."""
    yield from _metric("gauge", name, says, samples)


def histogram(
    name: str, says: str, bounds: Sequence[float], rows: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Yield how long operations took: each row has the count in each bucket, that above them, and the sum."""
    yield f"# HELP {name} {says}\n# TYPE {name} histogram\n"
    for operation, row in sorted(rows.items()):
        *counts, total = row
        below = 0
        for bound, count in zip([*map(repr, bounds), "+Inf"], counts, strict=True):
            below += int(count)
            yield line(f"{name}_bucket", (("operation", operation), ("le", bound)), below)
        yield line(f"{name}_sum", (("operation", operation),), round(total, 6))
        yield line(f"{name}_count", (("operation", operation),), below)


def line(name: str, labels: Labels, number: float) -> str:
    """Return one sample."""
    said = ",".join(f'{label}="{escaped(value)}"' for label, value in labels)
    return f"{name}{{{said}}} {number}\n" if said else f"{name} {number}\n"


def escaped(value: str) -> str:
    """Return the value of a label as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _metric(kind: str, name: str, says: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP {name} {says}\n# TYPE {name} {kind}\n"
    for labels, number in samples.items():
        yield line(name, labels, number)
