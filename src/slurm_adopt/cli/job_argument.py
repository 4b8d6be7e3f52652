# SPDX-License-Identifier: Apache-2.0
"""A job id on the command line."""

from __future__ import annotations

import argparse

from ..wire.user_exchange import MAX_JOB


def job_number(text: str) -> int:
    """A job id as `squeue` shows it for a job without tasks."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_JOB:
        raise argparse.ArgumentTypeError(f"not a job id: {text!r} (slurm-adopt jobs lists them)")
    return int(text)
