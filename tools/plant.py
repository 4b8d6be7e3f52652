# SPDX-License-Identifier: Apache-2.0
"""Faults to put into the product by hand, to see which verb finds them (docs/security/torture.md has what was found).

    python tools/plant.py NAME FOLDER      copies this checkout to FOLDER and puts the fault there
    python tools/plant.py                  lists the faults

Then, in FOLDER: `make torture MINUTES=3`, `make endurance LOGINS=2000 JOBS=50 STEPS=500`, `make fuzz`, `make check`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", "build*", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")


class Fault(NamedTuple):
    """What stands there once, and what is put in its place; in several files if it takes that."""

    meaning: str
    changes: tuple[tuple[str, str, str], ...]


ROOMS = "src/slurm_adopt"
POLICY = f"{ROOMS}/policy.py"
INDEX = f"{ROOMS}/resident/step_index.py"
ADOPTION = f"{ROOMS}/login/adoption.py"
MODULE = "src/pam/module.c"
FAULTS = {
    "session-unchecked": Fault(
        "the session phase believes the account phase, and does not look where the process is",
        (
            (
                POLICY,
                "    if facts.member_of and not facts.attempts:\n",
                "    if facts.account_job and not facts.attempts:\n"
                '        return Verdict("allow", "session-verified", facts.account_job, ACCOUNT)\n'
                "    if facts.member_of and not facts.attempts:\n",
            ),
        ),
    ),
    "adoption-unconfirmed": Fault(
        "what slurmstepd says is believed: /proc/PID/cgroup is not read back",
        ((ADOPTION, "    if membership.inside:\n        return", "    if membership:\n        return"),),
    ),
    "anothers-job": Fault(
        "a step of another user's is taken for the user's own",
        (
            (INDEX, "return list(self.settled.get(uid, {}).values())", "return list(self.entries.values())"),
            (
                f"{ROOMS}/resident/node_cache.py",
                "uid in index.settled for index in indexes):\n            return found",
                "True for index in indexes):\n            return found",
            ),
            (
                f"{ROOMS}/resident/node_cache.py",
                "if not any(uid in index.settled for index in indexes):\n            return\n",
                "if not indexes:\n            return\n",
            ),
            (f"{ROOMS}/login/steps.py", "    if identity.uid != uid:\n", "    if identity.uid < 0:\n"),
            (ADOPTION, "if identity is None or identity.uid != uid:", "if identity is None:"),
        ),
    ),
    "deadline-module": Fault(
        "the module waits three times as long as timeout= says",
        (
            (
                MODULE,
                "login.deadline_ns = login.started_ns + login.options.timeout_ns;",
                "login.deadline_ns = login.started_ns + 3 * login.options.timeout_ns;",
            ),
        ),
    ),
    "opcode": Fault(
        "slurmstepd is asked with another opcode to take a process in",
        ((f"{ROOMS}/wire/stepd.py", "    20,\n    22,\n", "    20,\n    21,\n"),),
    ),
    "descriptor-leak": Fault(
        "the service keeps the /proc/PID/cgroup of each process that it adopts",
        ((ADOPTION, "        close_all([text for text in texts if text >= 0])\n", "        texts.clear()\n"),),
    ),
    "hasten-left": Fault(
        "the kernel's setting is not put back",
        (
            (
                f"{ROOMS}/system/kernel/hasten.py",
                "            _let_go(self._switch, self._lock)\n",
                "            os.close(self._switch)\n            os.close(self._lock)\n",
            ),
        ),
    ),
    "index-keeps-ended": Fault(
        "the index of steps does not hear of one that has ended",
        (
            (
                INDEX,
                "            if path is None:\n                self._remove(name)\n",
                "            if path is None:\n                continue\n",
            ),
        ),
    ),
    "sessions-kept": Fault(
        "a session that has ended stays in the service's list",
        (
            (
                f"{ROOMS}/resident/sessions.py",
                "session = self._open.pop(session.pid)\n        pidfd",
                "session = self._open[session.pid]\n        pidfd",
            ),
        ),
    ),
    "root-as-everybody": Fault(
        "root is asked for and refused like everybody else",
        (
            (MODULE, "    if (login.uid == 0 && login.options.ignore_root)\n        return PAM_IGNORE;\n", ""),
            (
                POLICY,
                "if facts.uid == 0 and isinstance(decision, Verdict)",
                "if False and isinstance(decision, Verdict)",
            ),
            (
                "src/pam/log.c",
                "return login->uid == 0 && code != PAM_SUCCESS ? PAM_IGNORE : code;",
                "return code;",
            ),
        ),
    ),
    "audit-another-job": Fault(
        "the audit stream names the job after the one that it was",
        ((f"{ROOMS}/observe/audit.py", '"job": decided.job', '"job": decided.job + 1'),),
    ),
    "nobody-refused": Fault(
        "somebody without a job is let in",
        (
            (
                POLICY,
                "        return Verdict(options.action_no_jobs, reason)\n    left = ",
                '        return Verdict("allow", reason)\n    left = ',
            ),
        ),
    ),
}


def plant(name: str, folder: Path) -> None:
    """Change the files of the copy. `ValueError` if the checkout has changed and a text is not there once."""
    for file, before, after in FAULTS[name].changes:
        path = folder / file
        path.write_text(planted(path.read_text(), before, after, f"{name}: {file}"))


def planted(text: str, before: str, after: str, where: str) -> str:
    """The text with the fault."""
    if text.count(before) != 1:
        raise ValueError(f"{where} has {text.count(before)} times: {before}")
    return text.replace(before, after)


def main() -> int:
    """The exit status: 0 if the copy is there."""
    if len(sys.argv) != 3 or sys.argv[1] not in FAULTS:
        for name, fault in FAULTS.items():
            print(f"{name:24} {fault.meaning}")
        return 2
    folder = Path(sys.argv[2])
    shutil.copytree(CHECKOUT, folder, symlinks=True, ignore=LEFT_OUT)
    plant(sys.argv[1], folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
