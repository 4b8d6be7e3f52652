# SPDX-License-Identifier: Apache-2.0
"""REQUEST_NETWORK_CALLERID (5035) to a slurmd, its reply (5036), and a refusal (8001).

A message is `u32 length · header · auth section · body`, big-endian; `length` does not count itself.

Rules of this file:
1. Header versions v36 (20.11) to v45 (26.05). v36 and v37 have a msg_index, later ones have not. A refusal may have a
   later version, as a slurmd that is newer than this file makes it, or 0xfffe (25.05 and later, made before the
   request's version was known); both are taken to have the later form.
2. The auth section is missing exactly if flag 0x40 says so, which only refusals may.
3. `body_length` is exact, nothing follows the body's last field, strings have exactly one NUL, at their end.
4. Forwarding, return lists and everything else an answer to us never has are malformed.
5. What is decoded is not yet believed: the credential is to be verified, its hash compared (rpc_hash).
"""

from __future__ import annotations

import struct

from ..record import record
from .cursor import Cursor
from .errors import Incomplete, LocalProtocolError, RemoteProtocolError

REQUEST_NETWORK_CALLERID = 5035
RESPONSE_NETWORK_CALLERID = 5036
RESPONSE_SLURM_RC = 8001
AUTH_MUNGE = 101
AUTH_SLURM = 103

FIRST_VERSION = 36 << 8
LAST_VERSION = 45 << 8
UNKNOWN_VERSION = 0xFFFE
# the last version with a msg_index in the header
_LAST_INDEXED = 37 << 8
# the first version whose reply has a step id instead of a job id
_FIRST_STEP_ID = 44 << 8
FLAG_NO_AUTH = 0x40
NO_VAL = 0xFFFFFFFE
NO_VAL64 = 0xFFFFFFFFFFFFFFFE

RC_PROTOCOL_VERSION = 1005
RC_AUTHENTICATION = 1007
RC_TLS_REQUIRED = 13000

AF_INET, AF_INET6 = 2, 10
# an answer has some 200 bytes; a munge credential of ours 170, a token 500. Slurm itself takes up to 1 GiB
MAX_MESSAGE = 64 * 1024
MAX_CREDENTIAL = 16 * 1024
# a NodeName is a host name
MAX_NODE_NAME = 512


@record
class Message:
    """A message taken apart. `plugin` and `credential` are None without an auth section."""

    version: int
    flags: int
    msg_type: int
    plugin: int | None
    credential: str | None
    body: bytes


@record
class CallerReply:
    """A 5036: the job, None if there is none (or none we may know); `sluid` 0 if not said; the answering node."""

    job_id: int | None
    sluid: int
    node_name: str


def encode_request_body(source: bytes, source_port: int, target: bytes, target_port: int) -> bytes:
    """The body (52 bytes, all versions): remote end of the ssh connection, then our end, addresses of 4 or 16 bytes."""
    if len(source) != len(target) or len(source) not in (4, 16):
        raise LocalProtocolError("two addresses of one family are needed")
    mapped = b"\0" * 10 + b"\xff\xff"
    if source.startswith(mapped) and target.startswith(mapped):
        # slurmd compares with what /proc/net/tcp shows of its own end, which may be a plain IPv4 socket (22.05)
        source, target = source[12:], target[12:]
    family = AF_INET if len(source) == 4 else AF_INET6
    body = b"".join([struct.pack(">I", 16) + address.ljust(16, b"\0") for address in (source, target)])
    return body + struct.pack(">III", source_port, target_port, family)


def encode_message(version: int, msg_type: int, body: bytes, plugin: int, credential: str) -> bytes:
    """A whole message with its length."""
    if not FIRST_VERSION <= version <= LAST_VERSION or version & 0xFF:
        raise LocalProtocolError(f"no protocol version: {version}")
    text = credential.encode("ascii")
    if not text or b"\0" in text or len(text) >= MAX_CREDENTIAL:
        raise LocalProtocolError(f"a credential of {len(text)} bytes")
    index = struct.pack(">H", 0) if version <= _LAST_INDEXED else b""
    header = struct.pack(">HH", version, 0) + index + struct.pack(">HIHHH", msg_type, len(body), 0, 0, 0)
    auth = struct.pack(">II", plugin, len(text) + 1) + text + b"\0"
    message = header + auth + body
    return struct.pack(">I", len(message)) + message


def decode_length(data: bytes, cap: int = MAX_MESSAGE) -> int:
    """How long the message is that begins here, its four bytes of length included."""
    length = Cursor(data).unpack(">I")
    if not 16 <= length <= cap:
        raise RemoteProtocolError(f"message of {length} bytes, expected 16..{cap}")
    return length + 4


def decode_message(data: bytes, cap: int = MAX_MESSAGE) -> Message:
    """A whole message, length included; `Incomplete` if there is less of it, an error if there is more."""
    total = decode_length(data, cap)
    if len(data) < total:
        raise Incomplete(f"{len(data)} of {total} bytes")
    if len(data) > total:
        raise RemoteProtocolError(f"{len(data) - total} bytes too many")
    try:
        return _decode(Cursor(data[4:]))
    except Incomplete as error:
        # all of it is here: more will not help
        raise RemoteProtocolError(str(error)) from None


def _decode(cursor: Cursor) -> Message:
    version = cursor.unpack(">H")
    if version != UNKNOWN_VERSION and (version < FIRST_VERSION or version & 0xFF):
        raise RemoteProtocolError(f"unknown protocol version {version:#x}")
    flags = cursor.unpack(">H")
    if version <= _LAST_INDEXED:
        cursor.unpack(">H")
    msg_type = cursor.unpack(">H")
    if version > LAST_VERSION and msg_type != RESPONSE_SLURM_RC:
        raise RemoteProtocolError(f"an answer of the unknown protocol version {version:#x}")
    body_length = cursor.unpack(">I")
    if cursor.unpack(">H") or cursor.unpack(">H"):
        raise RemoteProtocolError("a message that was forwarded")
    _skip_address(cursor)
    plugin = credential = None
    if not flags & FLAG_NO_AUTH:
        plugin = cursor.unpack(">I")
        credential = _string(cursor, MAX_CREDENTIAL, "credential")
    elif msg_type == RESPONSE_NETWORK_CALLERID:
        raise RemoteProtocolError("an answer without a credential")
    # the message's own length is within its cap
    body = cursor.take_capped(body_length, len(cursor.data), "body")
    cursor.check_end()
    return Message(version, flags, msg_type, plugin, credential, body)


def _skip_address(cursor: Cursor) -> None:
    family = cursor.unpack(">H")
    if family == AF_INET:
        cursor.take(6)
    elif family == AF_INET6:
        cursor.take_capped(cursor.unpack(">I"), 16, "address")
        cursor.take(2)


def _string(cursor: Cursor, cap: int, what: str) -> str:
    """A string; the NULL string is an empty one."""
    raw = cursor.take_capped(cursor.unpack(">I"), cap, what)
    if not raw:
        return ""
    if raw[-1] or 0 in raw[:-1] or not raw.isascii():
        raise RemoteProtocolError(f"{what}: not a string")
    return raw[:-1].decode("ascii")


def decode_caller_reply(message: Message) -> CallerReply:
    """The body of a 5036, laid out as the message's version says."""
    if message.msg_type != RESPONSE_NETWORK_CALLERID or message.version > LAST_VERSION:
        raise RemoteProtocolError(f"message type {message.msg_type} of version {message.version:#x}")
    cursor = Cursor(message.body)
    sluid = cursor.unpack(">Q") if message.version >= _FIRST_STEP_ID else 0
    job_id = cursor.unpack(">I")
    if message.version >= _FIRST_STEP_ID:
        cursor.take(8)  # step and het component: 25.11 leaves them unset
    code = cursor.unpack(">I")
    node_name = _string(cursor, MAX_NODE_NAME, "node name")
    cursor.check_end()
    if code:
        raise RemoteProtocolError(f"an answer with return code {code}")
    if sluid == NO_VAL64:
        sluid = 0
    # 0 is no job either; NO_VAL and what lies above it are Slurm's special numbers
    return CallerReply(job_id if 0 < job_id < NO_VAL else None, sluid, node_name)


def decode_return_code(message: Message) -> int:
    """The body of an 8001."""
    if message.msg_type != RESPONSE_SLURM_RC:
        raise RemoteProtocolError(f"message type {message.msg_type}")
    cursor = Cursor(message.body)
    code = cursor.unpack(">I")
    cursor.check_end()
    return code
