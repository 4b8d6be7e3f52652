# SPDX-License-Identifier: Apache-2.0
"""`make mutants`: mutation testing. Each part is changed in one small way after the other, and its tests run.

A change that no test notices is a survivor. It is killed by a new test, or stands in tests/mutants.txt with the reason
why it changes nothing that matters. mutmut works in a copy; this checkout is never touched.

Not changed are lines that raise (their texts are for people) and constants outside functions: tables and opcodes are
compared with vectors in tests/wire.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
EXPLAINED = CHECKOUT / "tests/mutants.txt"
COPIED = ("src", "tests", "tools", "pytest.ini", "fuzz")
#: After a time mutmut ends each process that it has started, by its number, also where that is somebody else's by then:
#: root's mutmut could end anybody. With process numbers of its own it only meets its own.
APART = [
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *([] if os.geteuid() == 0 else ["--map-root-user"]),
]
#: Names of mutmut's for what a test run said.
SURVIVED = ("survived", "no tests")
CODEC = re.compile(r'"(UTF-8|ASCII)"')


#: In the place of the usual one, which knows nodes: the same examples each time, and what a killed mutant leaves counts
#: for nothing.
CONFTEST = """\
from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mutants")
"""


class Part(NamedTuple):
    """What is changed, and the tests that have to notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


STEPD = ("", "_vectors", "_numbers")
PARTS = {
    "policy": Part(("policy.py",), ("tests/unit/test_policy.py", "tests/unit/test_newest_order.py")),
    "stepd": Part(("wire/stepd.py", "wire/cursor.py"), tuple(f"tests/wire/test_stepd{x}.py" for x in STEPD)),
    "cgroup": Part(("wire/cgroup_path.py",), ("tests/wire/test_cgroup_path.py",)),
    "pam": Part(
        ("system/host/pam_stack.py",),
        ("tests/unit/system/test_pam_stack.py", "tests/unit/system/test_pam_config.py"),
    ),
    "exchange": Part(
        ("wire/fields.py", "wire/login_exchange.py", "wire/user_exchange.py"),
        ("tests/wire/test_exchange.py", "tests/wire/test_user_exchange.py"),
    ),
    "rpc": Part(
        ("wire/callerid.py", "wire/rpc_hash.py", "wire/slurm_token.py", "wire/sluid.py", "wire/job_end_question.py"),
        (
            "tests/wire/test_callerid_messages.py",
            "tests/wire/test_slurm_token.py",
            "tests/wire/test_sluid.py",
            "tests/wire/test_job_end_question.py",
        ),
    ),
    "conf": Part(
        ("wire/hostlist.py", "wire/slurm_conf.py", "wire/slurm_nodes.py"),
        ("tests/wire/test_hostlist.py", "tests/wire/test_slurm_conf.py"),
    ),
    "kernel": Part(("wire/sock_diag.py",), ("tests/wire/test_sock_diag.py",)),
}  # fmt: skip


class Mutant(NamedTuple):
    """A change that no test has noticed: the function, and the lines without and with it."""

    function: str
    without: str
    with_it: str


def main() -> int:
    """The exit status: 0 if every survivor is explained."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FUNCTION",
        help="only changes of this function, as survivors name it; * stands for anything",
    )
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    explained = read_explained(EXPLAINED.read_text())
    failed = False
    for name in args.parts or PARTS:
        counts, survivors = run_part(PARTS[name], args.only)
        new = [mutant for mutant in survivors if mutant not in explained and not is_same(mutant)]
        known = len(survivors) - len(new)
        total = sum(counts.values())
        late = counts.get("timeout", 0)
        killed = f"{total - len(survivors)} killed ({late} of them ran out of time)"
        print(f"{name}: {total} mutants, {killed}, {known} explained, {len(new)} new", flush=True)
        for mutant in new:
            print(f"\n{mutant.function}\n- {mutant.without}\n+ {mutant.with_it}")
        failed = failed or bool(new) or not total
    return 1 if failed else 0


def read_explained(text: str) -> dict[Mutant, str]:
    """Blocks of four lines: function, `- ` line, `+ ` line, `because ` reason."""
    found = {}
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        if len(lines) != 4 or not lines[3].startswith("because "):
            sys.exit(f"{EXPLAINED}: not function, - line, + line and reason:\n{block}")
        found[Mutant(lines[0], lines[1][2:], lines[2][2:])] = lines[3]
    return found


def run_part(part: Part, only: list[str]) -> tuple[dict[str, int], list[Mutant]]:
    """How many mutants there were by what became of them, and the survivors. `only`: patterns of functions' names."""
    patterns = [f"{function}__mutmut_*" for function in only]
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-mutants-") as folder:
        place = Path(folder)
        for name in COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, place / name)
        (place / "setup.cfg").write_text(settings(part))
        (place / "tests/conftest.py").write_text(CONFTEST)
        argv = [sys.executable, "-m", "mutmut"]
        environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "hypothesis")}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [*APART, *argv, "run", *patterns], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        shown = subprocess.run(
            [*argv, "results", "--all", "true"], cwd=place, env=environment, capture_output=True, text=True, check=False
        ).stdout
        results = [line.strip().rpartition(": ") for line in shown.splitlines() if ": " in line]
        if patterns and results:
            results = [row for row in results if any(fnmatch.fnmatch(row[0], pattern) for pattern in patterns)]
            if not results:
                sys.exit(f"no change of a function of that name: {', '.join(only)}")
        if done.returncode or not results or any(state == "not checked" for _, _, state in results):
            sys.exit(f"mutmut failed:\n{(done.stdout + done.stderr)[-3000:]}")
        counts: dict[str, int] = {}
        for _, _, state in results:
            counts[state] = counts.get(state, 0) + 1
        return counts, [show(place, argv, name) for name, _, state in results if state in SURVIVED]


def settings(part: Part) -> str:
    """setup.cfg for mutmut."""

    def listed(words: list[str]) -> str:
        return "".join(f"\n    {word}" for word in words)

    return f"""[mutmut]
source_paths={listed(["src/slurm_adopt"])}
only_mutate={listed([f"src/slurm_adopt/{file}" for file in part.files])}
pytest_add_cli_args_test_selection={listed(list(part.tests))}
pytest_add_cli_args={listed(["-q", "-p", "no:cacheprovider"])}
also_copy={listed(["tests", "tools", "fuzz", "pytest.ini"])}
do_not_mutate_patterns={listed(["^ *raise "])}
"""


def show(place: Path, argv: list[str], name: str) -> Mutant:
    """The one line that a mutant changes."""
    diff = subprocess.run([*argv, "show", name], cwd=place, capture_output=True, text=True, check=True).stdout
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    without = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    with_it = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return Mutant(name.rpartition("__mutmut_")[0], without, with_it)


def is_same(mutant: Mutant) -> bool:
    """Whether only the name of a codec is written in other letters, which means nothing to Python."""
    return CODEC.sub(lambda found: found[0].lower(), mutant.with_it) == mutant.without


if __name__ == "__main__":
    sys.exit(main())
