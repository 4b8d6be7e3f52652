# SPDX-License-Identifier: Apache-2.0
"""A job on the command line: its number, or what squeue calls it."""

from __future__ import annotations

import argparse

from ..wire.job_names import is_name
from ..wire.user_exchange import MAX_JOB
from ..words import called


class JobArgument:
    """A job that the user has named: `number` is 0 where `name` (`4700_11`, `4800+1`) has to be looked up."""

    def __init__(self, number: int, name: str = "") -> None:
        self.number = number
        self.name = name

    def find(self, socket: str) -> int:
        """The job's number; ends the command if the user has no such job on this node."""
        if self.name:
            from .job_names import job_called

            self.number = job_called(self.name, socket)
        return self.number

    def in_words(self, text: str) -> str:
        """The service's text, in which the job has its number, with the name that the user has used."""
        if not self.name:
            return text
        return text.replace(f"job {self.number}", f"job {called(self.number, {self.number: self.name})}", 1)


def job_number(text: str) -> int:
    """The number of a job."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_JOB:
        raise argparse.ArgumentTypeError(f"not a job id: {text!r} (slurm-adopt jobs lists them)")
    return int(text)


def job_argument(text: str) -> JobArgument:
    """A job as `squeue` or `slurm-adopt jobs` shows it."""
    return JobArgument(0, text) if is_name(text) else JobArgument(job_number(text))
