# SPDX-License-Identifier: Apache-2.0
"""check_return_codes.py DRIVER MODULE NEXT_MODULE: the built module's return codes where nobody can be asked.

The stack lies in a directory of this check's own (pam_start_confdir), so no root is needed. No helper is started:
`mode=service`, with a socket that is not there. tests/module has the rest, and needs root.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SUCCESS, PERM_DENIED, SESSION_ERR = 0, 6, 14
#: NEXT_MODULE, the next one of the stack, tells that the module returned PAM_IGNORE.
IGNORE = 17
PHASES = ("account", "open_session", "close_session")
#: (options, user, service, phases, code)
CASES = [
    ((), "root", "sshd", PHASES, IGNORE),
    (("profile=strict", "timeout=foo"), "root", "sshd", PHASES, IGNORE),
    (("profile=strict",), "nobody", "login", PHASES, IGNORE),
    (("profile=strict", "service=other"), "no-such-user", "sshd", PHASES, IGNORE),
    ((), "no-such-user", "sshd", ("account", "open_session"), SESSION_ERR),
    ((), "no-such-user", "sshd", ("close_session",), SUCCESS),
    ((), "nobody", "sshd", ("account", "open_session"), IGNORE),
    (("action_generic_failure=allow",), "nobody", "sshd", ("account",), SUCCESS),
    (("action_generic_failure=deny",), "nobody", "sshd", ("account",), PERM_DENIED),
    (("action_generic_failure=allowed",), "nobody", "sshd", ("account",), PERM_DENIED),
    (("action_generic_failure=allow", "profile=strict"), "nobody", "sshd", ("account",), PERM_DENIED),
    (("profile=strict", "profile=compatible"), "nobody", "sshd", ("account",), IGNORE),
    (("service=*", "profile=strict"), "nobody", "login", ("account",), PERM_DENIED),
    (("profile=strict",), "nobody", "sshd", ("close_session",), SUCCESS),
]


def main(driver: str, module: str, next_module: str) -> int:
    """The exit status: 0 if every code was as it should be."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder, "pam.d")
        stack.mkdir()
        (stack / "other").write_text("")
        for options, user, service, phases, code in CASES:
            words = " ".join(["mode=service", f"socket={folder}/nobody-listens", *options])
            lines = [
                f"{group} [success=done ignore=ignore default=die] {module} {words}\n{group} required {next_module}\n"
                for group in ("account", "session")
            ]
            (stack / service).write_text("".join(lines))
            for phase in phases:
                group = phase if phase == "account" else "session"
                done = subprocess.run(
                    [driver, str(stack), service, user, phase], stdout=subprocess.PIPE, text=True, check=False
                )
                fields = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
                if done.returncode or fields.get("code", "").split("\t")[0] != str(code):
                    wrong += 1
                    print(f"{group} {phase} {user} {service} {options}: {fields.get('code')}, not {code}")
    print(f"{sum(len(case[3]) for case in CASES)} calls, {wrong} with a wrong code")
    return 1 if wrong else 0


sys.exit(main(*sys.argv[1:]))
