# SPDX-License-Identifier: Apache-2.0
"""The host beside Slurm: systemd and its user managers, PAM's files, the journal, sockets, preferences."""
