# SPDX-License-Identifier: Apache-2.0
"""Munge credentials through libmunge.

Rules of this file:
1. libmunge runs in a child: it can block for half a minute on a munged that hangs. It is loaded here, once for all
   children: ctypes costs 4 ms, and only logins that ask for their caller pay it.
2. A credential of ours is for one uid only: whoever else gets it cannot decode it.
3. Who we are to munged is the child's uid: a credential as an ordinary user's needs a child that is one.
4. A decoded credential that munged does not call good is reported with its status and is never mistaken for a good one.
"""

from __future__ import annotations

import os
import struct

from ..record import record
from .child import ChildFault, call_in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

    from .task import Task

LIBRARY = "libmunge.so.2"
DEFAULT_SOCKET = "/run/munge/munge.socket.2"
ANY_UID = 0xFFFFFFFF
#: Slurm looks at the uid only; not 99, which it refuses.
NOBODYS_GID = 65534
#: The library, once it is loaded.
LOADED: list[ctypes.CDLL] = []
# munge_opt_t and munge_err_t of munge(3), the same since 0.5.0 (2005)
_OPT_TTL, _OPT_SOCKET, _OPT_UID = 4, 8, 9
_NO_LIBRARY = 0xFFFF
_REASONS = {
    6: "munge-unreachable",
    7: "munge-timeout",
    15: "credential-expired",
    16: "credential-rewound",
    17: "credential-replayed",
    18: "credential-unauthorized",
    _NO_LIBRARY: "munge-missing",
}
# the credential was right, but not at this time
_WITH_CONTENT = (0, 15, 16, 17)


class MungeFault(Exception):
    """No credential; `reason` is one of munge-missing, -unreachable, -timeout, -failed, credential-invalid,
    -expired, -rewound, -replayed, -unauthorized. The last but one have `content`."""

    def __init__(self, reason: str, detail: str, content: Credential | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.content = content


@record
class Credential:
    """What a credential says: who made it, for whom (`ANY_UID`: for all), and its payload."""

    uid: int
    gid: int
    restricted_to: int
    payload: bytes


def _fault(status: int, text: bytes, decoding: bool, content: Credential | None = None) -> MungeFault:
    reason = _REASONS.get(status, "credential-invalid" if decoding else "munge-failed")
    return MungeFault(reason, text.decode("utf-8", "replace"), content)


def _load() -> ctypes.CDLL:
    """The library, which does nothing by being loaded; `OSError` if it is not there."""
    import ctypes

    if not LOADED:
        library = ctypes.CDLL(LIBRARY)
        for name in ("munge_ctx_create", "munge_ctx_strerror", "munge_strerror"):
            getattr(library, name).restype = ctypes.c_void_p
        LOADED.append(library)
    return LOADED[0]


class _Munge:
    """libmunge, in the child."""

    def __init__(self, socket: str) -> None:
        import ctypes

        self.c = ctypes
        self.library = _load()
        self.context = ctypes.c_void_p(self.library.munge_ctx_create())
        if not self.context:
            raise OSError("munge_ctx_create failed")
        if socket:
            self.set(_OPT_SOCKET, ctypes.c_char_p(socket.encode("utf-8", "surrogateescape")))

    def set(self, option: int, value: object) -> None:
        status = self.library.munge_ctx_set(self.context, self.c.c_int(option), value)
        if status:
            raise OSError(f"munge_ctx_set({option}) gave {status}")

    def text(self, status: int) -> bytes:
        """What libmunge says about an error; the context knows more than the number."""
        for pointer in (
            self.library.munge_ctx_strerror(self.context),
            self.library.munge_strerror(self.c.c_int(status)),
        ):
            if status and pointer:
                return self.c.string_at(pointer)[:200]
        return b""

    def encode(self, payload: bytes, uid: int, ttl_s: int) -> tuple[int, bytes]:
        self.set(_OPT_UID, self.c.c_uint32(uid))
        if ttl_s:
            self.set(_OPT_TTL, self.c.c_int(ttl_s))
        credential = self.c.c_char_p()
        status = int(self.library.munge_encode(self.c.byref(credential), self.context, payload, len(payload)))
        return status, credential.value or b""

    def decode(self, text: bytes) -> tuple[int, Credential | None]:
        data: ctypes.c_void_p = self.c.c_void_p()
        size = self.c.c_int()
        uid, gid, restricted = self.c.c_uint32(), self.c.c_uint32(), self.c.c_uint32()
        by = self.c.byref
        status = int(self.library.munge_decode(text, self.context, by(data), by(size), by(uid), by(gid)))
        if status not in _WITH_CONTENT:
            return status, None
        self.library.munge_ctx_get(self.context, self.c.c_int(_OPT_UID), by(restricted))
        payload = self.c.string_at(data, size.value) if data.value and size.value > 0 else b""
        return status, Credential(uid.value, gid.value, restricted.value, payload)


def _call(socket: str) -> _Munge | bytes:
    try:
        return _Munge(socket)
    except OSError as error:
        return struct.pack("=I", _NO_LIBRARY) + str(error).encode("utf-8", "replace")[:200]


def _become(uid: int) -> None:
    """In the child, for good. The kernel lets nobody look into a process that has changed its uid."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(NOBODYS_GID, NOBODYS_GID, NOBODYS_GID)
        os.setresuid(uid, uid, uid)


def encode_credential(payload: bytes, uid: int, ttl_s: int, socket: str, as_uid: int, deadline_ns: int) -> Task[str]:
    """A credential of `as_uid` that only `uid` can decode, good for `ttl_s` seconds (0: munged's default, 300)."""

    def work() -> bytes:
        munge = _call(socket)
        if isinstance(munge, bytes):
            return munge
        _become(as_uid)
        status, credential = munge.encode(payload, uid, ttl_s)
        return struct.pack("=I", status) + (munge.text(status) if status else credential)

    answer = yield from _ask(work, deadline_ns)
    status, rest = struct.unpack_from("=I", answer)[0], answer[4:]
    if status or not rest.isascii() or not rest:
        raise _fault(status, rest, False)
    return rest.decode("ascii")


def decode_credential(text: str, socket: str, as_uid: int, deadline_ns: int) -> Task[Credential]:
    """What a good credential for `as_uid` or all says; `MungeFault` for every other."""

    def work() -> bytes:
        munge = _call(socket)
        if isinstance(munge, bytes):
            return munge
        _become(as_uid)
        status, found = munge.decode(text.encode("ascii"))
        if found is None:
            return struct.pack("=I", status) + munge.text(status)
        return struct.pack("=4I", status, found.uid, found.gid, found.restricted_to) + found.payload

    answer = yield from _ask(work, deadline_ns)
    status = struct.unpack_from("=I", answer)[0]
    if status not in _WITH_CONTENT:
        raise _fault(status, answer[4:], True)
    uid, gid, restricted_to = struct.unpack_from("=3I", answer, 4)
    credential = Credential(uid, gid, restricted_to, answer[16:])
    if status:
        raise _fault(status, b"", True, credential)
    return credential


def _ask(work: Callable[[], bytes], deadline_ns: int) -> Task[bytes]:
    try:
        _load()
    except OSError as error:
        raise MungeFault("munge-missing", str(error)) from None
    try:
        answer = yield from call_in_child(work, deadline_ns)
    except ChildFault as fault:
        raise MungeFault("munge-failed", str(fault)) from None
    if len(answer) < 4:
        raise MungeFault("munge-failed", "a short answer")
    return answer
