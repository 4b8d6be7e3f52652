# SPDX-License-Identifier: Apache-2.0
"""Credentials of a real munged with a key and a socket of its own: the host's, or that of the nodes' private root."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.root import ensure_root
from slurm_adopt.system.rpc.munge import (
    ANY_UID,
    KEPT,
    KEPT_NS,
    LIBRARY,
    MAX_QUESTIONS,
    Credential,
    MungeFault,
    MungeWorkers,
    decode_credential,
    encode_credential,
)
from slurm_adopt.system.tasks import child
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import DeadlineExceeded, all_of, run

if TYPE_CHECKING:
    from slurm_adopt.system.tasks.task import Task

ME = os.geteuid()

#: The clock that munged reads, by time(): the kernel counts it on once per timer interrupt, so it lies some
#: milliseconds behind time.time(). Linux's number for it: Python does not name it.
CLOCK_REALTIME_COARSE = 5


@pytest.fixture(scope="module")
def program() -> tuple[str, str]:
    """munged, and the folder of its library."""
    try:
        ctypes.CDLL(LIBRARY)
        found = shutil.which("munged", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found:
            return found, ""
    except OSError:
        pass
    if os.geteuid() != 0:
        pytest.skip("munge is not installed, and the private root needs root")
    root = ensure_root()
    library = next(root.glob(f"usr/lib/*/{LIBRARY}"))
    # from now on the library of this name is the loaded one
    ctypes.CDLL(str(library))
    return str(root / "usr/sbin/munged"), str(library.parent)


def soon(seconds: float = 10) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


@pytest.fixture(scope="module")
def munged(program: tuple[str, str]) -> Iterator[str]:
    # not below pytest's folder, which nobody but its owner may enter
    folder = Path(tempfile.mkdtemp(prefix="munge-"))
    folder.chmod(0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    path = folder / "socket"
    process = subprocess.Popen(
        [program[0], "--foreground", "--force", "--num-threads=1", f"--key-file={key}", f"--socket={path}",
         f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed"],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LD_LIBRARY_PATH": program[1]},
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while not path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert path.exists()
        yield str(path)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


@pytest.fixture
def workers() -> Iterator[MungeWorkers]:
    before = children()
    found = MungeWorkers()
    yield found
    found.close()
    assert children() == before


def children() -> set[str]:
    """Our children; those that were killed are waited for, as the next call would do."""
    while child.reap_children():
        time.sleep(0.001)
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def reason_of(task: object) -> str:
    with pytest.raises(MungeFault) as caught:
        run(task)  # type: ignore[arg-type]
    return caught.value.why


@pytest.mark.parametrize("payload", [b"", b"\2" + bytes(32), b"a\0b"])
def test_munge__round_trip(workers: MungeWorkers, munged: str, payload: bytes) -> None:
    me = os.geteuid()
    text = run(encode_credential(workers, payload, me, 60, munged, ME, soon()))
    assert text.startswith("MUNGE:")
    assert run(decode_credential(workers, text, munged, ME, soon())) == Credential(me, os.getegid(), me, payload)


def test_munge__for_all(workers: MungeWorkers, munged: str) -> None:
    text = run(encode_credential(workers, b"x", ANY_UID, 0, munged, ME, soon()))
    assert run(decode_credential(workers, text, munged, ME, soon())).restricted_to == ANY_UID


def test_munge__a_credential_for_somebody_else(workers: MungeWorkers, munged: str) -> None:
    text = run(encode_credential(workers, b"x", 12345, 0, munged, ME, soon()))
    assert reason_of(decode_credential(workers, text, munged, ME, soon())) == "credential-unauthorized"


def test_munge__replayed_and_expired(workers: MungeWorkers, munged: str) -> None:
    text = run(encode_credential(workers, b"x", ANY_UID, 1, munged, ME, soon()))
    run(decode_credential(workers, text, munged, ME, soon()))
    with pytest.raises(MungeFault) as caught:
        run(decode_credential(workers, text, munged, ME, soon()))
    assert caught.value.why == "credential-replayed"
    assert caught.value.content == Credential(os.geteuid(), os.getegid(), ANY_UID, b"x")
    text = run(encode_credential(workers, b"x", ANY_UID, 1, munged, ME, soon()))
    encoded = int(time.time())
    while int(time.clock_gettime(CLOCK_REALTIME_COARSE)) <= encoded + 1:  # munged counts whole seconds
        time.sleep(0.05)
    assert reason_of(decode_credential(workers, text, munged, ME, soon())) == "credential-expired"


@pytest.mark.skipif(ME != 0, reason="only root can speak as somebody else")
def test_munge__as_somebody_else(workers: MungeWorkers, munged: str) -> None:
    text = run(encode_credential(workers, b"x", 12345, 0, munged, 1001, soon()))
    assert reason_of(decode_credential(workers, text, munged, ME, soon())) == "credential-unauthorized"
    assert reason_of(decode_credential(workers, text, munged, 1001, soon())) == "credential-unauthorized"
    assert run(decode_credential(workers, text, munged, 12345, soon())) == Credential(1001, 65534, 12345, b"x")
    # the child only: we are who we were
    assert os.getresuid() == (0, 0, 0)


@pytest.mark.parametrize("text", ["", "x", "MUNGE::", "MUNGE:AwQFAAB:", "MUNGE:" + "A" * 4000 + ":"])
def test_munge__nonsense(workers: MungeWorkers, munged: str, text: str) -> None:
    assert reason_of(decode_credential(workers, text, munged, ME, soon())) in ("credential-invalid", "munge-failed")


def test_munge__tampered_or_unreachable(workers: MungeWorkers, munged: str, tmp_path: Path) -> None:
    text = run(encode_credential(workers, b"x", ANY_UID, 0, munged, ME, soon()))
    head, tail = text[:40], text[40:]
    flipped = head + ("A" if tail[0] != "A" else "B") + tail[1:]
    assert reason_of(decode_credential(workers, flipped, munged, ME, soon())) == "credential-invalid"
    assert reason_of(encode_credential(workers, b"x", 0, 0, str(tmp_path / "none"), ME, soon())) == "munge-unreachable"


@pytest.mark.usefixtures("program")
def test_munge__one_that_hangs_is_given_up(workers: MungeWorkers, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(1)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            run(encode_credential(workers, b"x", 0, 0, path, ME, soon(0.3)))
        assert time.monotonic() - started < 20  # libmunge itself takes half a minute


# The children that are kept -------------------------------------------------------------------------


class Later:
    """In place of the loop: what is to be called later, called by the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Callable[[], None]]] = []

    def __call__(self, when_ns: int, call: Callable[[], None]) -> None:
        self.calls.append((when_ns, call))


def mine(before: set[str]) -> list[str]:
    return sorted(children() - before)


def encode(workers: MungeWorkers, path: str, as_uid: int = ME, seconds: float = 10) -> Task[str]:
    return encode_credential(workers, b"x", ANY_UID, 0, path, as_uid, soon(seconds))


def test_munge__a_child_answers_again_and_again(munged: str) -> None:
    before, later = children(), Later()
    workers = MungeWorkers(later)
    text = run(encode(workers, munged))
    first = mine(before)
    assert len(first) == 1
    assert run(decode_credential(workers, text, munged, ME, soon())).payload == b"x"
    assert reason_of(decode_credential(workers, text, munged, ME, soon())) == "credential-replayed"
    assert mine(before) == first
    workers.close()
    assert mine(before) == []


def test_munge__only_a_few_children_are_kept(munged: str) -> None:
    before, workers = children(), MungeWorkers(Later())
    texts = run(all_of([encode(workers, munged) for _ in range(KEPT + 3)], soon()))
    assert len(set(texts)) == KEPT + 3  # each its own, in spite of the same question
    assert len(mine(before)) == KEPT
    workers.close()


def test_munge__a_child_that_hangs_takes_nothing_with_it(munged: str, tmp_path: Path) -> None:
    """The others go on side by side with it; it is gone with its login, and so is one whose login is given up."""
    before, workers = children(), MungeWorkers(Later())
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(8)
        hung = encode(workers, path, seconds=30)
        next(hung)
        (stuck,) = mine(before)
        given_up = encode(workers, path, seconds=30)
        next(given_up)
        for _ in range(3):
            assert run(encode(workers, munged)).startswith("MUNGE:")
        assert len(mine(before)) == 3
        given_up.close()
        hung.close()
    assert stuck not in mine(before)
    assert len(mine(before)) == 1
    workers.close()


def test_munge__a_child_that_somebody_has_killed(munged: str) -> None:
    before, workers = children(), MungeWorkers(Later())
    run(encode(workers, munged))
    (first,) = mine(before)
    os.kill(int(first), signal.SIGKILL)
    # a zombie from then on: its end of the socket is closed
    while Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert run(encode(workers, munged)).startswith("MUNGE:")
    assert len(mine(before)) == 1
    assert first not in mine(before)
    workers.close()


def test_munge__a_child_has_an_end(munged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, later = children(), Later()
    workers = MungeWorkers(later)
    run(encode(workers, munged))
    # unneeded: the timer of the last use ends it; one that was used again meanwhile stays until its own time
    (when_ns, ended), *rest = later.calls
    assert rest == []
    assert 0 < when_ns - time.monotonic_ns() <= KEPT_NS
    ended()
    assert len(mine(before)) == 1
    (_, ended), *rest = later.calls[1:]
    assert rest == []
    now_ns = time.monotonic_ns()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic_ns", lambda: now_ns + KEPT_NS)
        ended()
    assert mine(before) == []
    assert len(later.calls) == 2
    # worn out
    for _ in range(2):
        run(encode(workers, munged))
    (first,) = mine(before)
    workers._idle[0][2].asked = MAX_QUESTIONS - 1
    run(encode(workers, munged))
    assert mine(before) == []
    run(encode(workers, munged))
    assert first not in mine(before)
    workers.close()


def test_munge__a_child_ends_with_us(munged: str) -> None:
    """The service was killed: nobody is left to end its children."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before, workers = children(), MungeWorkers(Later())
            run(encode(workers, munged))
            os.write(write, mine(before)[0].encode())
        finally:
            os._exit(0)
    os.close(write)
    worker = int(os.read(read, 16))
    os.close(read)
    os.waitpid(pid, 0)
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()


def test_munge__the_loop_ends_it(munged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_adopt.system.rpc.munge.KEPT_NS", 1_000_000)
    before, loop = children(), Loop()
    done: list[object] = []
    loop.spawn(encode(MungeWorkers(loop.call_at), munged), lambda _, outcome: done.append(outcome))
    end = time.monotonic() + 30
    while (not done or mine(before)) and time.monotonic() < end:
        loop.call_at(time.monotonic_ns() + 10_000_000, lambda: None)
        loop.turn()
    assert isinstance(done[0], str)
    assert mine(before) == []


@pytest.mark.skipif(ME != 0, reason="only root can speak as somebody else")
def test_munge__a_users_child_is_never_kept_for_others(munged: str) -> None:
    """He may stop it, or look at what it does: it works for his login, and the service keeps none."""
    before, workers = children(), MungeWorkers(Later())
    assert run(encode(workers, munged, 1001)).startswith("MUNGE:")
    assert mine(before) == []
    run(encode(workers, munged))
    for as_uid in (1001, 1002):
        text = run(encode(workers, munged, as_uid))
        assert run(decode_credential(workers, text, munged, ME, soon())).uid == as_uid
    workers.close()
    # within one login it stays, as himself only
    login = MungeWorkers()
    for as_uid in (1001, ME, 1001):
        text = run(encode(login, munged, as_uid))
        assert run(decode_credential(login, text, munged, as_uid, soon())).uid == as_uid
    assert len(mine(before)) == 2
    login.close()
    assert mine(before) == []
