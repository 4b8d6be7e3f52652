# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt doctor`: looks at the node, and says what is wrong, why that matters, and how to mend it.

command     arguments, output, exit status
finding     what a check yields, and how it is shown
subjects    the one table of subjects; each is looked at in a child with a time limit
node        what the checks look at
nodes       the doctor on many nodes, with rooms of its own
module, helper, service, sshd, pam, slurm, daemons, selinux, kernel, user_managers, trial    the checks, by subject

A check is a generator of findings, with the node for its argument. It reads and never changes anything; `trial` alone
puts a process of the doctor's own into a job, and ends it.

May import: everything that `cli` may.
"""
