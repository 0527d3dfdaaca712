"""`python -m chaos`: break things, draw up the accounts, write docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from chaos import report
from chaos.scenarios import ALL
from lab import machine
from lab.processes import LabError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    keys = [one.key for one in ALL]
    parser = argparse.ArgumentParser("python -m chaos", description=__doc__)
    parser.add_argument("--only", default=",".join(keys), help="which scenarios, separated by commas")
    parser.add_argument("--short", action="store_true", help="some seconds each, and the page stays as it is")
    parser.add_argument("--list", action="store_true", help="tell their names")
    options = parser.parse_args(argv)
    options.only = options.only.split(",")
    unknown = set(options.only) - set(keys)
    if unknown:
        parser.error(f"unknown scenarios {', '.join(sorted(unknown))}: there are {', '.join(keys)}")
    return options


def main(argv: Sequence[str]) -> int:
    """Run; returns the exit code: 1 when something was not as it should be."""
    options = parse(argv)
    if options.list:
        print("\n".join(f"{one.key:12} {one.name}" for one in ALL))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends
    kept = report.read(report.RESULTS)
    failed = False
    for one in ALL:
        if one.key not in options.only:
            continue
        missing = one.needs()
        if missing:
            print(f"{one.key}: not run, {missing}", flush=True)
            continue
        began, load = time.monotonic(), os.getloadavg()[0]
        try:
            outcome = one.run(options.short)
        except (LabError, OSError) as error:
            print(f"{one.key}: not run, {error}", flush=True)
            failed = True
            continue
        day, took = f"{datetime.now(UTC):%Y-%m-%d}", time.monotonic() - began
        result = report.result_of(outcome, day, took, load)
        failed = failed or bool(result.faults)
        verdict = "FAILED" if result.faults else "passed"
        numbers = f"{result.due} due, {result.lost} lost, {result.repeated} repeated"
        print(f"{one.key}: {verdict} in {result.seconds:.0f} s; {numbers}")
        figures = [f"{name}: {value}" for name, value in result.figures.items()]
        print("".join(f"  {line}\n" for line in (*figures, *result.faults)), end="", flush=True)
        if not options.short:
            kept[one.key] = result
            # After each scenario: what was measured is not lost when a later one is interrupted.
            report.write(report.Results(machine.describe(), kept), ALL)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
