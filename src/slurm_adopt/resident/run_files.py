# SPDX-License-Identifier: Apache-2.0
"""Where the service's sockets and files are: for those who look at a service without being one."""

from __future__ import annotations

LOGIN_SOCKET = "/run/slurm-adopt/login.sock"
ADMIN_SOCKET = "/run/slurm-adopt/admin.sock"
SESSIONS_FILE = "/run/slurm-adopt/sessions"
NUMBERS_FILE = "/run/slurm-adopt/metrics.prom"
RECENT_FILE = "/run/slurm-adopt/recent"
