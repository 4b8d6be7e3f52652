# SPDX-License-Identifier: Apache-2.0
"""What logins tell those that come after them."""

from __future__ import annotations

from slurm_adopt.login.recent import CAP, Recent
from slurm_adopt.options.parse import parse_options


def test_recent__the_options_of_each_line() -> None:
    recent = Recent()
    strict, other = ("service=*", "profile=strict"), ("service=sshd", "hint=a b")
    assert recent.options_of(strict) == parse_options(strict)
    assert recent.options_of(other) == parse_options(other)
    assert recent.options_of(strict) is recent.options_of(tuple(strict))
    assert recent.options_of(()) == parse_options(())


def test_recent__does_not_grow() -> None:
    """Root's PAM lines are few, but a caller of the service may say what it likes."""
    recent = Recent()
    for number in range(CAP + 10):
        assert recent.options_of((f"hint={number}",)).hint == str(number)
    assert len(recent._options) <= CAP
