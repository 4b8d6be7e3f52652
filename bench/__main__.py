# SPDX-License-Identifier: Apache-2.0
"""`make bench`: our module beside Debian's C module; all parts, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

from bench.plot import DRAWN
from bench.report import PARTS, RESULTS, Options, Report, write


def draw_if_possible(report: Report, folder: Path) -> None:
    """The plot, and the overview that shows it; without matplotlib (bench/requirements.txt) only a word about it."""
    if importlib.util.find_spec("matplotlib") is None:
        print("  no plot: matplotlib is not installed")
        return
    DRAWN[report.name](report.rows, folder / f"{report.name}.svg")
    write(report, folder)


def main() -> None:
    default = Options()
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--jobs", default=",".join(map(str, default.jobs)), help="on the node (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of each measurement (default %(default)s)")
    parser.add_argument("--connections", type=int, default=default.connections, help="unrelated (default %(default)s)")
    parser.add_argument("--logins", type=int, default=default.logins, help="of a storm (default %(default)s)")
    parser.add_argument("--storms", type=int, default=default.storms, help="with each module (default %(default)s)")
    parser.add_argument("--users", type=int, default=default.users, help="of a storm (default %(default)s)")
    parser.add_argument(
        "--hung-limit", type=float, default=default.hung_limit_s, help="seconds for the original (default %(default)s)"
    )
    parser.add_argument("--suite", default=None, help="Debian release of the node")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if args.rounds < 2:
        parser.error("quartiles need two rounds")
    jobs = tuple(int(word) for word in args.jobs.split(","))
    options = Options(
        args.suite, args.rounds, jobs, args.connections, args.logins, args.storms, args.users, args.hung_limit
    )
    for name in args.parts or PARTS:
        if importlib.util.find_spec(f"bench.{name}") is None:
            sys.exit(f"bench/{name}.py is not there")
        print(f"== {name}", flush=True)
        report = importlib.import_module(f"bench.{name}").run(options)
        write(report, args.results)
        if name in DRAWN:
            draw_if_possible(report, args.results)
        print("\n".join(f"  {goal}" for goal in report.goals))
    print(f"written: {args.results}/README.md")


if __name__ == "__main__":
    main()
