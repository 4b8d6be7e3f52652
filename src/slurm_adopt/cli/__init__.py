# SPDX-License-Identifier: Apache-2.0
"""The command `slurm-adopt`: one file for each subcommand, and `status_view` for what `status` shows.

May import everything. Runs as whoever calls it.
"""
