# SPDX-License-Identifier: Apache-2.0
"""Places that the build fixes. An installed package has this file made anew, with the values of the build's options."""

from __future__ import annotations

#: Where slurm.conf is looked for first (meson option `slurm_conf`).
SLURM_CONF = "/etc/slurm/slurm.conf"
#: The one-shot helper that the module starts (meson option `helper`).
HELPER = "/usr/libexec/slurm-adopt/helper"
#: The prolog, epilog and task prolog for slurm.conf.
HOOKS = "/usr/libexec/slurm-adopt/hooks"
