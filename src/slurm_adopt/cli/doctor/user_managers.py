# SPDX-License-Identifier: Apache-2.0
"""What systemd keeps running for users outside of their jobs, and the hooks that the options need."""

from __future__ import annotations

import os
import pwd

from ...places import HOOKS
from ...system.host.user_manager import DROP_INS, LINGER
from .finding import ERROR, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

UID_MIN, UID_MAX = 1000, 60000
NAMED_CAP = 5


def check_user_managers(node: Node) -> Iterator[Finding]:
    """Lingering; user_manager= and runtime_dir= without what they need."""
    try:
        names = sorted(os.listdir(node.place(LINGER)))
    except OSError:
        names = []
    people = [name for name in names if _is_person(name)]
    if people:
        shown = ", ".join(people[:NAMED_CAP]) + (f" and {len(people) - NAMED_CAP} more" if people[NAMED_CAP:] else "")
        yield Finding(
            "lingering",
            WARNING,
            f"lingering is on for {shown}",
            "systemd keeps a manager for them that outlives their jobs, and starts it at boot",
            "\n".join(f"loginctl disable-linger {name}" for name in people[:NAMED_CAP]),
        )
    lines = [line for line in node.our_lines("session") if line.works]
    held = next((line for line in lines if line.options.user_manager != "keep"), None)
    hooked = any(f"{HOOKS}/epilog" in text for text in _hooks(node, "epilog"))
    if held is not None and held.options.user_manager == "refuse" and not any(map(node.exists, DROP_INS)):
        yield Finding(
            "user-manager-drop-in",
            ERROR,
            f"{held.line.origin} has user_manager=refuse, and {DROP_INS[0]} is missing",
            "lingering, su or cron can start the user's manager again",
            "install slurm-adopt's units again, then systemctl daemon-reload",
        )
    if held is not None and not hooked:
        yield Finding(
            "user-manager-epilog",
            WARNING,
            f"{held.line.origin} has user_manager={held.options.user_manager}, and Epilog= does not run {HOOKS}/epilog",
            "what was refused or confined stays so after the user's last job here, until the next boot",
            f"Epilog={HOOKS}/epilog    # in slurm.conf, or call it from the site's own",
        )
    running = next((line for line in lines if line.options.runtime_dir == "user"), None)
    if running is not None and not any(f"{HOOKS}/prolog" in text for text in _hooks(node, "prolog")):
        yield Finding(
            "runtime-dir-prolog",
            WARNING,
            f"{running.line.origin} has runtime_dir=user, and Prolog= does not run {HOOKS}/prolog",
            "nobody makes the directory: sessions have no XDG_RUNTIME_DIR",
            f"Prolog={HOOKS}/prolog" + ("" if hooked else f"\nEpilog={HOOKS}/epilog") + "    # in slurm.conf",
        )

    elif running is not None and not hooked and held is None:
        yield Finding(
            "runtime-dir-epilog",
            WARNING,
            f"{running.line.origin} has runtime_dir=user, and Epilog= does not run {HOOKS}/epilog",
            "nobody removes the directory: what users leave there fills the memory, and waits for their next job",
            f"Epilog={HOOKS}/epilog    # in slurm.conf, with the prolog beside it",
        )


def _hooks(node: Node, key: str) -> Iterator[str]:
    """The values of Prolog= or Epilog=, and the texts of the scripts that they name."""
    for value in node.settings(key):
        yield value
        for path in node.glob(os.path.join(node.conf_folder(), value)):
            yield node.text(path) or ""


def _is_person(name: str) -> bool:
    try:
        return UID_MIN <= pwd.getpwnam(name).pw_uid < UID_MAX
    except KeyError:
        return False
