# SPDX-License-Identifier: Apache-2.0
"""Slurm on this node: its configuration, its spool directory, and its slurmstepds."""
