# SPDX-License-Identifier: Apache-2.0
"""root, logged in by ssh, does `su alice` on a node with the documentation's session line for su: root's session stays."""

from __future__ import annotations

from lab.machine import wait_for
from lab.node import Node

LINE = "required pam_slurm_adopt.so profile=strict service=* user_manager=refuse"
SLICE = "/sys/fs/cgroup/systemd/user.slice"
SCOPE = f"{SLICE}/user-0.slice/session-3.scope"


def test_su__what_runs_in_the_session_of_root_stays_there(node: Node) -> None:
    node.pam("su", session=[LINE])
    job = node.submit("alice")
    node.run(["mkdir", "-p", SCOPE])
    work = node.popen(["sh", "-c", f"echo $$ > {SCOPE}/cgroup.procs; exec sleep 4343"])
    try:
        wait_for(lambda: "session-3.scope" in str(node.process("sleep 4343").cgroups), "root's work in root's session")
        said = node.run(
            ["sh", "-c", f"echo $$ > {SCOPE}/cgroup.procs; su -s /bin/sh -c 'cat /proc/self/cgroup' alice"], check=False
        )
        assert f"job_{job}/" in said.stdout, said  # su itself is in the job
        assert f"job_{job}/" not in str(node.process("sleep 4343").cgroups)
        node.cancel(job)
        assert work.poll() is None
    finally:
        work.kill()
        work.wait()
        node.pam("su")
        node.run(f"rmdir {SCOPE} {SLICE}/user-0.slice {SLICE}", check=False)
