# SPDX-License-Identifier: Apache-2.0
"""SELinux: whether the policy that lets sshd ask us is there, and the booleans that the options need."""

from __future__ import annotations

import os

from ...places import HELPER
from .finding import ERROR, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

FILES = "/sys/fs/selinux"
LABEL = b":slurm_adopt_exec_t"
ATTRIBUTE = "security.selinux"


def check_selinux(node: Node) -> Iterator[Finding]:
    """Nothing to say where SELinux is off."""
    mode = (node.text(f"{FILES}/enforce") or "").strip()
    if mode not in ("0", "1"):
        return
    severity = ERROR if mode == "1" else WARNING
    if not node.exists(f"{FILES}/booleans/slurm_adopt_join_namespaces"):
        yield Finding(
            "selinux-policy-missing",
            severity,
            f"SELinux is {'enforcing' if mode == '1' else 'permissive'}, and slurm-adopt's policy is not loaded",
            "sshd may neither start the helper nor ask the service: action_generic_failure= holds for each login",
            "semodule -i /usr/share/selinux/packages/slurm_adopt.pp && "
            "restorecon -RF /usr/libexec/slurm-adopt /usr/bin/slurm-adopt /run/slurm-adopt",
        )
        return
    label = _label(node.place(HELPER))
    if label and LABEL not in label:
        yield Finding(
            "selinux-label",
            severity,
            f"{HELPER} has the label {label.decode('utf-8', 'replace').rstrip(chr(0))}",
            "sshd may not start it",
            "restorecon -RF /usr/libexec/slurm-adopt /usr/bin/slurm-adopt /run/slurm-adopt",
        )
    for boolean, why in _needed(node):
        value = (node.text(f"{FILES}/booleans/{boolean}") or "").split()
        if value[:1] == ["0"]:
            yield Finding(
                "selinux-boolean",
                severity,
                f"the boolean {boolean} is off",
                f"{why} is refused by SELinux",
                f"setsebool -P {boolean} on",
            )


def _needed(node: Node) -> list[tuple[str, str]]:
    lines = [line for kind in ("account", "session") for line in node.our_lines(kind) if line.works]
    conf = node.conf_or_none()
    contained = conf is not None and conf.container_type not in ("", "job_container/none")
    needed = {}
    for line in lines:
        if contained and line.options.join_container:
            needed["slurm_adopt_join_namespaces"] = "joining the job's namespaces"
        if line.options.rlimits == "job":
            needed["slurm_adopt_job_limits"] = "rlimits=job"
        if line.options.user_manager == "refuse":
            needed["slurm_adopt_end_user_manager"] = "user_manager=refuse"
        if line.options.user_manager == "confine":
            needed["slurm_adopt_confine_user_manager"] = "user_manager=confine"
    return sorted(needed.items())


def _label(path: str) -> bytes | None:
    try:
        return os.getxattr(path, ATTRIBUTE)
    except OSError:
        return None
