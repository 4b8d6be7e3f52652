# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt doctor --nodes`: the doctor on many nodes, and in what they differ.

ask         runs the doctor on the nodes, through ClusterShell or srun
clustershell
            the former of these, with its tree of gateways
answers     what a node has sent, checked; what is alike is folded
report      the report for a terminal and as JSON
page        the same as one HTML page

What nodes send is believed of them alone, and shown as text: a node that is broken or in foreign hands can say nothing
of another, run no script in the reader's browser, and write no control character to the terminal.

May import: everything that `cli` may.
"""
