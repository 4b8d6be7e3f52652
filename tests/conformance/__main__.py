# SPDX-License-Identifier: Apache-2.0
"""The table of all cases as Markdown. Exits 1 if a difference is not explained, or something else than expected."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("src", "tools")]

from tests.conformance.cases import Case  # noqa: E402
from tests.conformance.groups import CASES, CASES_WITH_CONTAINERS, measure_all  # noqa: E402
from tests.conformance.situations import MODULES, ORIGINAL, OURS, Measured  # noqa: E402
from tests.conformance.stacks import STACKS, USERS, measure_stacks  # noqa: E402


def verdict(case: Case, got: Measured) -> str:
    """The last column: same, differs and why, or what is wrong."""
    if not case.explains_original(got.original):
        return f"**WRONG**: the original was expected to: {case.original}"
    if got.ours != case.ours:
        return f"**WRONG**: ours was expected to: {case.ours}"
    if case.differs is None:
        return "same" if got.ours == got.original else "**WRONG**: not explained"
    return f"differs. {case.differs.why}"


def main() -> int:
    every = "--all" in sys.argv[1:]
    measured = measure_all()
    rows: dict[tuple[str, ...], list[str]] = {}
    wrong = 0
    for number, case in enumerate(CASES):
        if case in CASES_WITH_CONTAINERS and case.name not in measured:
            continue  # this Slurm has no job_container/tmpfs
        got = measured[case.name]
        said = verdict(case, got)
        wrong += "WRONG" in said
        key = (case.situation, str(got.original), str(got.ours), said, str(number) if every else "")
        rows.setdefault(key, []).append(f"`{case.call.args}`" if case.call.args else "defaults")
    print("| Situation | Options | Original | Ours | |\n| --- | --- | --- | --- | --- |")
    for (situation, original, ours, said, _), options in rows.items():
        print(f"| {situation} | {', '.join(options)} | {original} | {ours} | {said} |")
    explained = sum(case.differs is not None for case in CASES if case.name in measured)
    print(f"\n{len(measured)} cases: {explained} differ on purpose, {wrong} are wrong.\n")
    return 1 if wrong + print_stacks() else 0


def print_stacks() -> int:
    """The table of whole stacks; returns how many are wrong."""
    measured = measure_stacks()
    wrong = 0
    print(f"| PAM stack | Module | {' | '.join(USERS)} | |\n|{' --- |' * (len(USERS) + 3)}")
    for stack in STACKS:
        logins = measured[stack.name]
        right = all(logins[which] == stack.expected_of(which) for which in MODULES)
        wrong += not right
        said = f"differs. {stack.why}" if stack.differs else "same"
        one = ((f"{ORIGINAL} and {OURS}", logins[OURS]),)
        rows = one if logins[ORIGINAL] == logins[OURS] else tuple(logins.items())
        for which, users in rows:
            shown = " | ".join(str(users[user]) for user in USERS)
            print(f"| {stack.name} | {which} | {shown} | {said if right else '**WRONG**'} |")
    print(f"\n{len(STACKS)} stacks, {len(USERS)} users each: {wrong} are wrong.")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
