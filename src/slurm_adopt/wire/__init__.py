# SPDX-License-Identifier: Apache-2.0
"""Bytes to validated values and back, without I/O: our own exchanges, Slurm's protocols, the kernel's texts.

Malformed input raises `RemoteProtocolError` (theirs) or `LocalProtocolError` (ours), and nothing else.
"""
