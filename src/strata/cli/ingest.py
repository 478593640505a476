"""Take in what others recorded: OpenTelemetry spans, chat transcripts."""

from __future__ import annotations

import sys
from argparse import Namespace

from strata.api.ingest import MissingParents, Source
from strata.cli.opening import open_database


def run(arguments: Namespace) -> int:
    """Ingest a file in one commit; print how much was written."""
    source: Source = sys.stdin.buffer if arguments.file == "-" else arguments.file
    with open_database(arguments) as db:
        place = db.branch(arguments.branch).space(arguments.space)
        if arguments.format == "otlp":
            missing: MissingParents = "roots" if arguments.roots else "refuse"
            done = place.ingest_otlp(source, missing_parents=missing, tags=arguments.tag)
        else:
            done = place.ingest_transcript(
                source,
                stream=arguments.stream,
                id=arguments.id,
                time_field=arguments.time_field,
                tags=arguments.tag,
            )
    there = f"; {done.skipped:,} there already" if done.skipped else ""
    print(f"version {done.version:,}: {done.traces:,} traces, {done.events:,} events{there}")
    return 0
