# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel's view: processes by number and start time, their cgroups, who holds a connection.

`procfs` is the only file that looks below /proc/PID. `pin`, `cgroup_move` and `hasten` are the only ones that change
anything.
"""
