# SPDX-License-Identifier: Apache-2.0
"""The same cases against the original C module and ours, in one isolated node with real Slurm.

    python -m tests.conformance      the table, as Markdown; exits 1 on a difference that is not explained
    pytest tests/conformance         the same, one test per case

driver      runs inside the node: real libpam, one forked child per call, so that only the child is adopted
outcome     what a call did, in comparable words
cases       the table of cases: options, situation, what is expected, and why ours differs where it does
situations  the node, its users and jobs; measures a case with both modules
stacks      whole PAM stacks through real sshd
"""
