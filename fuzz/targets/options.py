# SPDX-License-Identifier: Apache-2.0
"""The module (C) and Python read the same from a PAM line, for the options that both of them read.

Whatever stands there, there are options, each value is one of those in the table, and the profile strict refuses.
"""

from __future__ import annotations

from slurm_adopt.options.parse import parse_options
from slurm_adopt.options.schema import OPTIONS

from ..native import module_reads_options
from ..reader import Reader

#: Those that src/pam/options.c knows.
SHARED = ("service", "ignore_root", "timeout", "socket", "mode", "profile", "action_generic_failure", "enforce")
VALUES = (
    "", "0", "1", "2", "0.1", "0.0999", "300", "300.001", "5.", ".5", "1.2345", "1e2", "007", "sshd", "*", "auto",
    "service", "oneshot", "strict", "compatible", "Strict", "deny", "allow", "ignore", "/run/x", "relative", "yes", "no", "adopt",
)  # fmt: skip
NAMES = (*SHARED, *(spec.name for spec in OPTIONS), "")
WORDS = (*VALUES, None)


def check(data: bytes) -> None:
    """Up to 12 words of a PAM line."""
    reader = Reader(data)
    args = []
    for _ in range(reader.number(13)):
        name = reader.one_of(NAMES)
        value = reader.one_of(WORDS)
        word = reader.text(120) if value is None else value
        args.append(f"{name}={word}" if name else word)
    options = parse_options(args)
    assert None not in options.__dict__.values()
    assert 0.1 <= options.timeout_s <= 300
    if options.profile == "strict":
        actions = (options.action_no_jobs, options.action_adopt_failure, options.action_generic_failure)
        assert set(actions) == {"deny"}
    told = module_reads_options(args)
    assert told == [
        f"service={','.join(options.services)}",
        f"socket={options.socket}",
        f"timeout_ns={round(options.timeout_s * 1000) * 1000000}",
        f"mode={options.mode}",
        f"enforce={options.enforce}",
        f"failure={options.action_generic_failure}",
        f"ignore_root={int(options.ignore_root)}",
    ]
