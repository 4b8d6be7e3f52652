# SPDX-License-Identifier: Apache-2.0
"""`make test-matrix`: one package file on Debian 11, 12, 13 and testing, each with its own Slurm, OpenSSH and Python.

In each of them the package is installed in place of the original's; then every kind of login with both modules, the
cases of conformance, caller ID between two nodes, the table of faults, and the upgrade of a node's slurmd under running
jobs from the release before it. One table at the end; what failed before it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import matrix
from lab.matrix_targets import NodeTarget, openssh_version

ROOT = Path(__file__).resolve().parents[1]
SUITES = {"bullseye": "Debian 11", "bookworm": "Debian 12", "trixie": "Debian 13", "forky": "Debian testing"}
#: Column: what pytest runs for it.
AREAS = {
    "conformance": ["tests/conformance"],
    "caller ID": ["tests/node/system/test_callerid.py"],
    "faults": ["tests/node/faults/test_faults.py"],
    "rolling upgrade": ["tests/node/system/test_rolling_upgrade.py", "-m", "releases", "-k", "to-{suite}"],
}
#: Releases whose Slurm takes slurmds of the release before.
UPGRADES = ("bookworm", "forky")
#: Of what a run that failed has said.
SHOWN = 40_000


def deb(work: Path) -> Path:
    """The package for this machine: one that was built before (SLURM_ADOPT_DIST), or one of this checkout."""
    machine = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True)
    arch = machine.stdout.strip()
    folder = Path(os.environ.get("SLURM_ADOPT_DIST") or work / "out")
    if "SLURM_ADOPT_DIST" not in os.environ:
        argv = [sys.executable, str(ROOT / "tools/packages"), "deb", "--arch", arch]
        subprocess.run([*argv, "--work", str(work / "work"), "--out", str(folder)], check=True)
    (found,) = folder.glob(f"slurm-adopt_*_{arch}.deb")
    return found


def logins() -> tuple[str, dict[str, tuple[int, int]]]:
    """(what is in the machine, {module: (logins wholly in their job or rightly refused, all of them)})."""
    target = NodeTarget()
    target.up()
    try:
        python = target.run(["python3", "--version"]).stdout.strip()
        about = f"Slurm {target.slurm_version}, {openssh_version(target.run(['ssh', '-V']).stderr)}, {python}"
        counts: dict[str, tuple[int, int]] = {"original": (0, 0), "ours": (0, 0)}
        for setup, outcomes in matrix.examine(target).items():
            bad = [one for one in outcomes if not (one.contained or (setup.is_refused and not one.opened))]
            for one in bad if setup.module == "ours" else ():
                said = one.said.strip().splitlines()[-1:]
                print(f"test-matrix: {setup.title}: {one.method}, {one.kind}: {one.cell()}", *said, flush=True)
            before = counts[setup.module]
            counts[setup.module] = (before[0] + len(outcomes) - len(bad), before[1] + len(outcomes))
    finally:
        target.close()
    return about, counts


def tests(area: Sequence[str], work: Path, environment: Mapping[str, str]) -> tuple[int, int]:
    """(tests that passed, all but those that were left out)."""
    report = work / "report.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=short", f"--junitxml={report}", *area]
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        # where the first one fails in what all share, hundreds follow
        said = done.stdout
        print(said if len(said) < SHOWN else f"{said[: SHOWN // 2]}\n...\n{said[-SHOWN // 2 :]}", flush=True)
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314  # pytest wrote it a moment ago
    assert suite is not None
    total, skipped, failed, broken = (int(suite.get(key, "0")) for key in ("tests", "skipped", "failures", "errors"))
    return total - skipped - failed - broken, total - skipped


def main() -> int:
    parser = argparse.ArgumentParser(description="one package on every release")
    parser.add_argument("--suite", action="append", choices=list(SUITES), help="default: all")
    parser.add_argument("--area", action="append", choices=[*AREAS, "logins"], help="default: all")
    arguments = parser.parse_args()
    areas = arguments.area or ["logins", *AREAS]
    rows, good = [], True
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-matrix-") as name:
        work = Path(name)
        os.environ["SLURM_ADOPT_PACKAGE"] = str(deb(work))
        for suite in arguments.suite or list(SUITES):
            os.environ["SLURM_ADOPT_SUITE"] = suite
            cells = []
            about = ""
            if "logins" in areas:
                about, counts = logins()
                cells += [f"{right} of {total}" for right, total in counts.values()]
                good = good and counts["ours"][0] == counts["ours"][1]
            for area in (area for area in AREAS if area in areas):
                if area == "rolling upgrade" and suite not in UPGRADES:
                    cells.append("")
                    continue
                print(f"test-matrix: {SUITES[suite]}: {area}", file=sys.stderr, flush=True)
                argv = [word.format(suite=suite) for word in AREAS[area]]
                passed, total = tests(argv, work, os.environ)
                cells.append(f"{passed} of {total}")
                good = good and passed == total > 0
            rows.append(f"| {SUITES[suite]} | {about} | {' | '.join(cells)} |")
        package = Path(os.environ["SLURM_ADOPT_PACKAGE"]).name
    titles = ["Release", "with", *(["logins, original", "logins, ours"] if "logins" in areas else [])]
    titles += [area for area in AREAS if area in areas]
    print(f"\n{package}, on every release:\n\n| {' | '.join(titles)} |\n{'| --- ' * len(titles)}|")
    print("\n".join(rows), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
