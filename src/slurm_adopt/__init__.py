# SPDX-License-Identifier: Apache-2.0
"""slurm-adopt: ssh logins on Slurm compute nodes, put into the user's job."""

from __future__ import annotations

__version__ = "0.1.0"
