# SPDX-License-Identifier: Apache-2.0
"""Munge credentials through libmunge.

Rules of this file:
1. libmunge runs in a child: it can block for half a minute on a munged that hangs. Such a child is killed, and costs
   the login that it works for, and no other.
2. A credential of ours is for one uid only: whoever else gets it cannot decode it.
3. Who we are to munged is the child's uid: a credential as an ordinary user's needs a child that is one. It is the
   user's own process then, and the user may stop it: it works for the one login that it was made for.
4. A decoded credential that munged does not call good is reported with its status and is never mistaken for a good one.
"""

from __future__ import annotations

import os
import struct
import time

from ...model import Fault
from ...record import record
from ..kernel.procfs import read_file
from ..tasks.child import ChildFault, Worker
from ..tasks.task import MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

    from ..tasks.task import Task

    Later = Callable[[int, Callable[[], None]], object]

LIBRARY = "libmunge.so.2"
DEFAULT_SOCKET = "/run/munge/munge.socket.2"
ANY_UID = 0xFFFFFFFF
#: Slurm looks at the uid only; not 99, which it refuses.
NOBODYS_GID = 65534
#: capabilities(7)
CAP_SETGID, CAP_SETUID = 6, 7
#: The library, once it is loaded.
LOADED: list[ctypes.CDLL] = []
# munge_opt_t and munge_err_t of munge(3), the same since 0.5.0 (2005)
_OPT_TTL, _OPT_SOCKET, _OPT_UID = 4, 8, 9
_NO_LIBRARY = 0xFFFF
_WHY = {
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
_ENCODE, _DECODE = 0, 1
# what to do, for whom (uid), for how long (seconds), and the length of munged's path; then that path, then the content
_QUESTION = "=BIIH"
# two logins at the same moment find one each; to start another one costs a millisecond or two
KEPT = 2
KEPT_NS = 30_000 * MS
# should libmunge lose memory
MAX_QUESTIONS = 1000


class MungeFault(Fault):
    """No credential; `why` is one of munge-missing, -unreachable, -timeout, -failed, credential-invalid,
    -expired, -rewound, -replayed, -unauthorized. The last but one have `content`."""

    def __init__(self, why: str, detail: str, content: Credential | None = None) -> None:
        super().__init__("caller-no-credential" if why.startswith("munge-") else "caller-untrusted", detail)
        self.why = why
        self.content = content


@record
class Credential:
    """The content of a credential: who made it, for whom (`ANY_UID`: for all), and its payload."""

    uid: int
    gid: int
    restricted_to: int
    payload: bytes


def _fault(status: int, text: bytes, decoding: bool, content: Credential | None = None) -> MungeFault:
    why = _WHY.get(status, "credential-invalid" if decoding else "munge-failed")
    return MungeFault(why, text.decode("utf-8", "replace"), content)


def load() -> ctypes.CDLL:
    """The library, which does nothing by being loaded; `OSError` if it is not there."""
    import ctypes

    if not LOADED:
        library = ctypes.CDLL(LIBRARY)
        for name in ("munge_ctx_create", "munge_ctx_strerror", "munge_strerror"):
            getattr(library, name).restype = ctypes.c_void_p
        for name in ("munge_ctx_destroy", "free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = None
        LOADED.append(library)
    return LOADED[0]


class _Munge:
    """libmunge, in the child."""

    def __init__(self, socket: bytes) -> None:
        import ctypes

        self.c = ctypes
        self.library = load()
        self.context = ctypes.c_void_p(self.library.munge_ctx_create())
        if not self.context:
            raise OSError("munge_ctx_create failed")
        if socket:
            self.set(_OPT_SOCKET, ctypes.c_char_p(socket))

    def set(self, option: int, value: object) -> None:
        status = self.library.munge_ctx_set(self.context, self.c.c_int(option), value)
        if status:
            raise OSError(f"munge_ctx_set({option}) gave {status}")

    def text(self, status: int) -> bytes:
        """Return libmunge's text about an error; the context knows more than the number."""
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
        text: ctypes.c_void_p = self.c.c_void_p()
        status = int(self.library.munge_encode(self.c.byref(text), self.context, payload, len(payload)))
        try:
            return status, self.c.string_at(text) if text.value else b""
        finally:
            self.library.free(text)

    def decode(self, text: bytes) -> tuple[int, Credential | None]:
        data: ctypes.c_void_p = self.c.c_void_p()
        size = self.c.c_int()
        uid, gid, restricted = self.c.c_uint32(), self.c.c_uint32(), self.c.c_uint32()
        by = self.c.byref
        status = int(self.library.munge_decode(text, self.context, by(data), by(size), by(uid), by(gid)))
        try:
            if status not in _WITH_CONTENT:
                return status, None
            self.library.munge_ctx_get(self.context, self.c.c_int(_OPT_UID), by(restricted))
            payload = self.c.string_at(data, size.value) if data.value and size.value > 0 else b""
            return status, Credential(uid.value, gid.value, restricted.value, payload)
        finally:
            self.library.free(data)


def _answer(question: bytes) -> bytes:
    """In the child: what munged says to a question."""
    what, uid, ttl_s, length = struct.unpack_from(_QUESTION, question)
    content = question[struct.calcsize(_QUESTION) :]
    try:
        munge = _Munge(content[:length])
    except OSError as error:
        return struct.pack("=I", _NO_LIBRARY) + str(error).encode("utf-8", "replace")[:200]
    try:
        if what == _ENCODE:
            status, credential = munge.encode(content[length:], uid, ttl_s)
            return struct.pack("=I", status) + (munge.text(status) if status else credential)
        status, found = munge.decode(content[length:])
        if found is None:
            return struct.pack("=I", status) + munge.text(status)
        return struct.pack("=4I", status, found.uid, found.gid, found.restricted_to) + found.payload
    finally:
        munge.library.munge_ctx_destroy(munge.context)


def may_become_others() -> bool:
    """Whether this process may change its uid and gid: the resident service's unit does not allow it."""
    status = read_file("/proc/self/status") or b""
    effective = int(status[status.find(b"\nCapEff:") :].split(None, 2)[1], 16)
    return effective >> CAP_SETUID & effective >> CAP_SETGID & 1 == 1


def _become(uid: int) -> None:
    """In the child, for good. The kernel lets nobody look into a process that has changed its uid."""
    os.setgroups([])
    os.setresgid(NOBODYS_GID, NOBODYS_GID, NOBODYS_GID)
    os.setresuid(uid, uid, uid)


class MungeWorkers:
    """The children that speak to munged: started when they are needed, and kept for a while.

    `later` is the loop's `call_at`: who has one ends a worker that nobody has needed for half a minute. Without it
    they are kept until `close()`, those that are somebody else as well: it is one login's life then.
    """

    def __init__(self, later: Later | None = None) -> None:
        self._later = later
        self._idle: list[tuple[int, int, Worker]] = []
        self._timed = False

    @property
    def outlive_logins(self) -> bool:
        """Whether these are the resident service's: a one-shot login has some of its own, and no other helper."""
        return self._later is not None

    def prepare(self) -> None:
        """Start a worker that will be needed in a moment: it loads libmunge while we go on."""
        self._give_back(os.geteuid(), self._take(os.geteuid()))

    def ask(self, question: bytes, as_uid: int, deadline_ns: int) -> Task[bytes]:
        """Ask munged as this uid. Raises `MungeFault`, `DeadlineExceeded`."""
        worker = self._take(as_uid)
        try:
            answer = yield from worker.ask(question, deadline_ns)
        except BaseException as error:
            # it may hang, or have an answer under way that nobody wants any more
            worker.end()
            if isinstance(error, ChildFault):
                raise MungeFault("munge-failed", str(error)) from None
            raise
        self._give_back(as_uid, worker)
        if len(answer) < 4:
            raise MungeFault("munge-failed", "a short answer")
        return answer

    def close(self) -> None:
        """End all that are kept."""
        idle, self._idle = self._idle, []
        for _, _, worker in idle:
            worker.end()

    def _take(self, as_uid: int) -> Worker:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index][0] == as_uid:
                worker = self._idle.pop(index)[2]
                if worker.is_alive():
                    return worker
                worker.end()
        if self._later is not None:
            _try_load()
        return Worker(_answer if as_uid == os.geteuid() else _answer_as(as_uid), _try_load)

    def _give_back(self, as_uid: int, worker: Worker) -> None:
        full = len(self._idle) >= KEPT or worker.asked >= MAX_QUESTIONS
        if full or (self._later is not None and as_uid != os.geteuid()):
            worker.end()
            return
        self._idle.append((as_uid, time.monotonic_ns(), worker))
        self._time()

    def _time(self) -> None:
        """See to it that the one which is idle for longest is ended when its time is up."""
        if self._later is not None and self._idle and not self._timed:
            self._timed = True
            self._later(self._idle[0][1] + KEPT_NS, self._end_unneeded)

    def _end_unneeded(self) -> None:
        self._timed = False
        while self._idle and self._idle[0][1] + KEPT_NS <= time.monotonic_ns():
            self._idle.pop(0)[2].end()
        self._time()


def _try_load() -> None:
    """For the children to come, or in the child before it is asked."""
    try:
        load()
    except OSError:
        return  # the first question finds out as well, and its answer says so


def _answer_as(uid: int) -> Callable[[bytes], bytes]:
    became = False

    def answer(question: bytes) -> bytes:
        nonlocal became
        if not became:
            _become(uid)
            became = True
        return _answer(question)

    return answer


def encode_credential(
    workers: MungeWorkers, payload: bytes, uid: int, ttl_s: int, socket: str, as_uid: int, deadline_ns: int
) -> Task[str]:
    """A credential of `as_uid` that only `uid` can decode, good for `ttl_s` seconds (0: munged's default, 300)."""
    answer = yield from workers.ask(_question(_ENCODE, uid, ttl_s, socket, payload), as_uid, deadline_ns)
    status, rest = struct.unpack_from("=I", answer)[0], answer[4:]
    if status or not rest.isascii() or not rest:
        raise _fault(status, rest, False)
    return rest.decode("ascii")


def decode_credential(workers: MungeWorkers, text: str, socket: str, as_uid: int, deadline_ns: int) -> Task[Credential]:
    """Return the content of a valid credential for `as_uid` or for all. Raises `MungeFault` for any other."""
    # to libmunge it is a C string
    question = _question(_DECODE, 0, 0, socket, text.encode("ascii"))
    answer = yield from workers.ask(question, as_uid, deadline_ns)
    status = struct.unpack_from("=I", answer)[0]
    if status not in _WITH_CONTENT or len(answer) < struct.calcsize("=4I"):
        raise _fault(status, answer[4:], True)
    uid, gid, restricted_to = struct.unpack_from("=3I", answer, 4)
    credential = Credential(uid, gid, restricted_to, answer[16:])
    if status:
        raise _fault(status, b"", True, credential)
    return credential


def _question(what: int, uid: int, ttl_s: int, socket: str, content: bytes) -> bytes:
    path = socket.encode("utf-8", "surrogateescape")
    return struct.pack(_QUESTION, what, uid, ttl_s, len(path)) + path + content
