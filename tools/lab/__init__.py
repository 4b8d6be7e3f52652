# SPDX-License-Identifier: Apache-2.0
"""Real Slurm and real sshd, isolated on one machine.

    from lab.node import Node
    with Node() as node:
        job = node.submit("alice")
        print(node.ssh("alice", "cat /proc/self/cgroup").stdout)

root        the private root file system the node runs in, built once and cached
cgroups     cgroups of the node's own, on cgroup v1, hybrid and v2 hosts
namespaces  what process 1 of a machine does before it becomes the machine's init
supervisor  the process that owns the namespaces and takes everything down, whatever happens to the test
init        process 1 inside (log listener, reaper)
machine     one set of namespaces: run commands, read and write files, look at processes
sshd, slurm, node, cluster   what runs in it
leaks       proof that nothing of all this is left behind

Needs root, overlayfs, and Linux 5.3 (pidfds).
"""

from __future__ import annotations
