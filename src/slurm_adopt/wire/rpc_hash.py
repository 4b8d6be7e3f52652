# SPDX-License-Identifier: Apache-2.0
"""Binds a credential to the message it comes with: the payload inside the munge credential or token.

| receiver            | accepts                                                                            |
| ------------------- | ---------------------------------------------------------------------------------- |
| 20.11.0–8, 21.08.0–7 | anything, and sends nothing                                                       |
| 20.11.9, 21.08.8    | nothing, or 01 and the message type in host order                                  |
| 22.05 and later     | K12 (02), from 24.05 SHA3-256 (04); 01 and the type in network order; nothing      |

Rules of this file:
1. We send the strongest form that the receiver of a version takes: K12 from v38 on, else 01 in host order.
2. We believe K12 and SHA3 from v38 on. For v36 and v37 there is nothing better than 01, or nothing at all: such a
   reply is authentic as a credential of root's, but not bound to its body, and `check_payload` says so.
"""

from __future__ import annotations

import struct

from .kangaroo12 import CHUNK, kangaroo12

# the first header version whose receivers know K12 (22.05)
FIRST_HASHED = 38 << 8
# body, type and its length in one chunk
MAX_HASHED_BODY = CHUNK - 4
NONE, K12, SHA3 = 1, 2, 4

# how a payload is bound to the message
BOUND_BODY, BOUND_TYPE, BOUND_NOT = "body", "type", "not"


def _type_bytes(msg_type: int) -> bytes:
    return struct.pack(">H", msg_type)


def _host_order(msg_type: int) -> bytes:
    return bytes([NONE]) + struct.pack("=H", msg_type)


def hash_payload(version: int, msg_type: int, body: bytes) -> bytes:
    """The payload for a message that we send with this header version; 33 or 3 bytes."""
    if version < FIRST_HASHED:
        return _host_order(msg_type)
    return bytes([K12]) + kangaroo12(body, _type_bytes(msg_type))


def check_payload(payload: bytes, version: int, msg_type: int, body: bytes) -> str | None:
    """How a received payload is bound to its message: `body`, `type`, `not` (an empty one); None if it is wrong."""
    if version < FIRST_HASHED:
        if not payload:
            return BOUND_NOT
        if payload == _host_order(msg_type):
            return BOUND_TYPE
    if len(payload) != 33 or len(body) > MAX_HASHED_BODY:
        return None
    if payload[0] == K12:
        expected = kangaroo12(body, _type_bytes(msg_type))
    elif payload[0] == SHA3:
        import hashlib

        expected = hashlib.sha3_256(body + _type_bytes(msg_type)).digest()
    else:
        return None
    # not a secret: whoever has made the credential has made both
    return BOUND_BODY if payload[1:] == expected else None
