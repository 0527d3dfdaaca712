"""`python -m bench`: run rows, print a table, write the figures as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.result import Context, Row
from bench.rows import ROWS
from bench.sides import find_bullmq
from bench.table import table
from lab.processes import ROOT, LabError

_WITH_BULLMQ = {"burst", "lateness", "memory", "idle"}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes: to see that each row works")
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows, separated by commas")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results.json", help="the file to write")
    options = parser.parse_args(argv)
    options.rows = options.rows.split(",")
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")
    return options


def main(argv: Sequence[str]) -> int:
    """Run; returns the exit code: 1 when a row could not be measured."""
    options = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends
    bullmq, note = None, ""
    if _WITH_BULLMQ & set(options.rows):
        bullmq, note = find_bullmq(install=not options.small)
    context = Context(options.small, bullmq, note)
    report: dict[str, Any] = {"machine": describe(bullmq), "small": options.small, "rows": {}}
    rows: dict[str, Row] = {}
    failed = False
    for name in options.rows:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            row = importlib.import_module(f"bench.rows.{name}").run(context)
        except (LabError, OSError) as error:
            row = Row([], {}, [f"not measured: {error}"])
            failed = True
        rows[name] = row
        report["rows"][name] = {
            "figures": [figure.as_json() for figure in row.figures],
            "sizes": row.sizes,
            "notes": row.notes,
            "seconds": round(time.monotonic() - began, 1),
        }
        # After each row: what was measured is not lost when a later one is interrupted.
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(", ".join(f"{name}: {value}" for name, value in report["machine"].items() if value is not None))
    print(table(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
