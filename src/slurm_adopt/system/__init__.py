# SPDX-License-Identifier: Apache-2.0
"""The only place that does I/O. Every call takes a point in time until which it may wait.

tasks       waiting, sockets, children, programs
kernel      processes, cgroups, sockets as the kernel shows them
slurm       slurm.conf, the spool directory, slurmstepd
rpc         questions to slurmd and slurmctld: credentials, caller ID, when a job ends
host        systemd, PAM's configuration, the journal, user managers

May import: wire, model, record. Its rooms import each other downwards only: rpc, host -> slurm -> kernel -> tasks.
"""
