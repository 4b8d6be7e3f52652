# SPDX-License-Identifier: Apache-2.0
"""`python -m fuzz`: run targets, and say how often each ran and what it found.

Without --seconds and --runs only the corpus is replayed. What breaks an invariant is kept in the target's corpus, so
that every later run begins with it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import targets
from .native import HERE, ROOT, BuildError, build_module, build_reply, find_clang

NATIVE = ("module", "reply")
#: The reply parser's corpus is that of the tests, which know which of its files are good.
CORPORA = {"reply": ROOT / "tests/corpus/reply"}
SANITIZER_ENV = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
DONE = re.compile(r"number_of_executed_units:\s*(\d+)|Done (\d+) (?:runs|in)")
#: libFuzzer and replay.c both get at least this long.
LEAST_S = 1.0


class Result(NamedTuple):
    """What came of one target."""

    name: str
    runs: int
    seconds: float
    findings: tuple[str, ...]
    output: str


class Plan(NamedTuple):
    """How long each target runs: for so many seconds or so often."""

    seconds: float
    runs: int
    seed: int


def corpus_of(name: str) -> Path:
    """The folder that a target begins with."""
    folder = CORPORA.get(name, HERE / "corpus" / name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def command_of(name: str, plan: Plan, findings: Path, grown: Path, build: Path) -> list[str]:
    """What runs a target once."""
    corpus = corpus_of(name)
    if name not in NATIVE:
        runs = plan.runs or (0 if plan.seconds else len(list(corpus.iterdir())) + 1)
        numbers = (str(plan.seed), str(plan.seconds), str(runs))
        return [sys.executable, "-m", "fuzz.one", name, *numbers, str(findings), str(grown), str(corpus)]
    clang = find_clang()
    program = (build_module if name == "module" else build_reply)(build, clang or "cc")
    if clang is None:
        # some 5,000 runs a second on one processor of 2020
        runs = plan.runs or int(plan.seconds * 5000)
        return [str(program), str(runs), str(plan.seed), *map(str, sorted(corpus.iterdir()))]
    words = [f"-seed={plan.seed}", f"-artifact_prefix={findings}/", "-timeout=20", "-max_len=9000", "-verbosity=0"]
    words += ["-print_final_stats=1", f"-dict={HERE}/reply.dict"]
    if plan.seconds:
        words.append(f"-max_total_time={max(1, round(plan.seconds))}")
    else:
        words.append(f"-runs={plan.runs}")
    return [str(program), *words, str(grown), str(corpus)]


def run_target(name: str, plan: Plan, keep: Path | None) -> Result:
    """Run it, and move what it found into its corpus."""
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-fuzz-") as folder:
        findings, grown, build = (Path(folder, part) for part in ("findings", "grown", "build"))
        for part in (findings, grown, build):
            part.mkdir()
        try:
            command = command_of(name, plan, findings, grown, build)
        except BuildError as error:
            return Result(name, 0, 0, ("not built",), str(error))
        began = time.monotonic()
        environment = {**os.environ, **SANITIZER_ENV, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        output = (done.stdout + done.stderr).decode("utf-8", "replace")
        found = []
        for path in sorted(findings.iterdir()):
            if path.name.startswith(("crash-", "timeout-", "oom-", "leak-")):
                shutil.copy(path, corpus_of(name) / path.name)
                found.append(path.name)
        if done.returncode and not found:
            found.append(f"exit status {done.returncode}")
        if keep is not None:
            shutil.copytree(grown, keep / name, dirs_exist_ok=True)
        counts = [int(one or other) for one, other in DONE.findall(output)]
        return Result(name, max(counts, default=0), time.monotonic() - began, tuple(found), output)


def main() -> int:
    """The exit status: 0 if nothing was found."""
    everything = [*NATIVE, *targets.names()]
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=everything, help="only this one (again for more)")
    parser.add_argument("--seconds", type=float, default=0, help="for all targets together")
    parser.add_argument("--runs", type=int, default=0, help="of each target, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="the same one does the same; default: a new one")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--keep", type=Path, help="keep what the coverage grew to below this folder")
    args = parser.parse_args()
    chosen = args.target or everything
    seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    each = max(LEAST_S, args.seconds / len(chosen)) if args.seconds else 0.0
    engine = "libFuzzer" if find_clang() else "replay.c, without coverage: there is no clang"
    print(f"fuzz: {len(chosen)} targets, seed {seed}, C with {engine}", flush=True)
    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        plan = Plan(each * args.jobs, args.runs, seed)
        for result in pool.map(lambda name: run_target(name, plan, args.keep), chosen):
            said = ", ".join(result.findings) or "nothing found"
            print(f"{result.name:16} {result.runs:>10} runs {result.seconds:7.1f} s  {said}", flush=True)
            if result.findings:
                failed += 1
                print(result.output[-6000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
