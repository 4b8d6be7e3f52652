# SPDX-License-Identifier: Apache-2.0
"""The two errors of the wire layer: whose fault it is."""

from __future__ import annotations


class ProtocolError(Exception):
    """Bytes or values that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """Their fault: bytes or text from outside that are malformed. No decoder raises anything else."""


class Incomplete(RemoteProtocolError):
    """The bytes end before the value does; more of them may complete it."""


class LocalProtocolError(ProtocolError):
    """Our fault: we tried to encode what the protocol cannot carry."""
