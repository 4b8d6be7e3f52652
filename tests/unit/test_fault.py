# SPDX-License-Identifier: Apache-2.0
"""The one base of what carries a reason code."""

from __future__ import annotations

from slurm_adopt.model import REASONS, Fault
from slurm_adopt.system.host.user_manager import ManagerFault
from slurm_adopt.system.rpc.munge import MungeFault
from slurm_adopt.system.rpc.tls import TlsFault


def test_fault__says_its_detail_or_else_its_reason() -> None:
    fault = Fault("step-gone", "the socket is stale")
    assert (fault.reason, fault.detail, str(fault)) == ("step-gone", "the socket is stale", "the socket is stale")
    assert str(Fault("step-gone")) == "step-gone"


def test_fault__those_of_one_kind_have_their_reason() -> None:
    """The codes are in the table, and whose fault it is follows from what libmunge says."""
    faults = [ManagerFault("x"), TlsFault("x"), MungeFault("munge-timeout", "x"), MungeFault("credential-expired", "x")]
    assert [fault.reason for fault in faults] == [
        "user-manager-failed", "caller-untrusted", "caller-no-credential", "caller-untrusted"
    ]  # fmt: skip
    assert all(fault.reason in REASONS and fault.detail == "x" for fault in faults)
