# SPDX-License-Identifier: Apache-2.0
"""Credentials of a real munged with a key and a socket of its own: the host's, or that of the nodes' private root."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.root import ensure_root
from slurm_adopt.system.munge import ANY_UID, LIBRARY, Credential, MungeFault, decode_credential, encode_credential
from slurm_adopt.system.task import DeadlineExceeded, run

ME = os.geteuid()


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


def reason_of(task: object) -> str:
    with pytest.raises(MungeFault) as caught:
        run(task)  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("payload", [b"", b"\2" + bytes(32), b"a\0b"])
def test_munge__round_trip(munged: str, payload: bytes) -> None:
    me = os.geteuid()
    text = run(encode_credential(payload, me, 60, munged, ME, soon()))
    assert text.startswith("MUNGE:")
    assert run(decode_credential(text, munged, ME, soon())) == Credential(me, os.getegid(), me, payload)


def test_munge__for_all(munged: str) -> None:
    text = run(encode_credential(b"x", ANY_UID, 0, munged, ME, soon()))
    assert run(decode_credential(text, munged, ME, soon())).restricted_to == ANY_UID


def test_munge__a_credential_for_somebody_else(munged: str) -> None:
    text = run(encode_credential(b"x", 12345, 0, munged, ME, soon()))
    assert reason_of(decode_credential(text, munged, ME, soon())) == "credential-unauthorized"


def test_munge__replayed_and_expired(munged: str) -> None:
    text = run(encode_credential(b"x", ANY_UID, 1, munged, ME, soon()))
    run(decode_credential(text, munged, ME, soon()))
    with pytest.raises(MungeFault) as caught:
        run(decode_credential(text, munged, ME, soon()))
    assert caught.value.reason == "credential-replayed"
    assert caught.value.content == Credential(os.geteuid(), os.getegid(), ANY_UID, b"x")
    text = run(encode_credential(b"x", ANY_UID, 1, munged, ME, soon()))
    time.sleep(2.1)
    assert reason_of(decode_credential(text, munged, ME, soon())) == "credential-expired"


@pytest.mark.skipif(ME != 0, reason="only root can speak as somebody else")
def test_munge__as_somebody_else(munged: str) -> None:
    text = run(encode_credential(b"x", 12345, 0, munged, 1001, soon()))
    assert reason_of(decode_credential(text, munged, ME, soon())) == "credential-unauthorized"
    assert reason_of(decode_credential(text, munged, 1001, soon())) == "credential-unauthorized"
    assert run(decode_credential(text, munged, 12345, soon())) == Credential(1001, 65534, 12345, b"x")
    # the child only: we are who we were
    assert os.getresuid() == (0, 0, 0)


@pytest.mark.parametrize("text", ["", "x", "MUNGE::", "MUNGE:AwQFAAB:", "MUNGE:" + "A" * 4000 + ":"])
def test_munge__nonsense(munged: str, text: str) -> None:
    assert reason_of(decode_credential(text, munged, ME, soon())) in ("credential-invalid", "munge-failed")


def test_munge__tampered_or_unreachable(munged: str, tmp_path: Path) -> None:
    text = run(encode_credential(b"x", ANY_UID, 0, munged, ME, soon()))
    head, tail = text[:40], text[40:]
    flipped = head + ("A" if tail[0] != "A" else "B") + tail[1:]
    assert reason_of(decode_credential(flipped, munged, ME, soon())) == "credential-invalid"
    assert reason_of(encode_credential(b"x", 0, 0, str(tmp_path / "none"), ME, soon())) == "munge-unreachable"


@pytest.mark.usefixtures("program")
def test_munge__one_that_hangs_is_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(1)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            run(encode_credential(b"x", 0, 0, path, ME, soon(0.3)))
        assert time.monotonic() - started < 3
