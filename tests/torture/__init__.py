# SPDX-License-Identifier: Apache-2.0
"""`make torture`: logins without an end on a node with real Slurm while faults happen, watched by a checker.

Rules of this room:
1. The checker (`watch.py`) imports nothing of the product's, and believes nothing that the product says: it reads the
   kernel's /proc, and knows from its own submissions whose job is which.
2. A seed gives the same choices. It does not give the same run: Slurm, sshd and the kernel have their own time.
3. A fault is a row of `faults.py`, and is taken back after a while, so that every run also shows the recovery.
"""
