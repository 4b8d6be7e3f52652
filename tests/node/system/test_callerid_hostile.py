# SPDX-License-Identifier: Apache-2.0
"""Caller ID against a slurmd that is not one: everything a node, or somebody in its place, could answer.

The other side has the cluster's key where the test says so, so that each refusal below has exactly its own reason.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.node.system.daemon import Daemon, Scenario

from slurm_adopt.record import replace
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.rpc import callerid
from slurm_adopt.system.rpc.callerid import Asker, CallerFault, Question, ask_node, find_caller
from slurm_adopt.system.rpc.credentials import AuthFault, auth_settings, read_keys, speaker
from slurm_adopt.system.rpc.memory import CallerMemory
from slurm_adopt.system.slurm.conf import SlurmConf, read_slurm_conf
from slurm_adopt.system.tasks.task import DeadlineExceeded, all_of, run, sleep_until
from slurm_adopt.wire.callerid import (
    AUTH_MUNGE,
    AUTH_SLURM,
    RESPONSE_NETWORK_CALLERID,
    RESPONSE_SLURM_RC,
    CallerReply,
    decode_message,
    encode_message,
)
from slurm_adopt.wire.login_exchange import Connection
from slurm_adopt.wire.rpc_hash import hash_payload
from slurm_adopt.wire.slurm_conf import parse
from slurm_adopt.wire.slurm_nodes import NodeRecord
from slurm_adopt.wire.slurm_token import ANY_UID, Key, encode_token, verify_token

KEY = Key(b"k" * 32)
ME = os.geteuid()
QUESTION = Question(bytes([192, 0, 2, 1]), 40000, bytes([192, 0, 2, 2]), 22)
V42 = 42 << 8
#: Stands for the slurmstepd of a job, at which nobody looks here.
INIT = Process(1, 1)
HOUR_S = 3600


def soon(seconds: float = 10) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


@pytest.fixture
def conf(tmp_path: Path) -> SlurmConf:
    path = tmp_path / "slurm.conf"
    path.write_text("ClusterName=lab\nAuthType=auth/slurm\n")
    path.chmod(0o644)
    (tmp_path / "slurm.key").write_bytes(KEY.secret)
    (tmp_path / "slurm.key").chmod(0o600)
    return replace(read_slurm_conf((str(path),)), step_owners=(0, ME) if ME else (0,))


class Slurmd(Daemon):
    """A slurmd that slurm.conf would have as node n1."""

    @property
    def node(self) -> NodeRecord:
        return NodeRecord("n1", "n1", "127.0.0.1", self.port)


@pytest.fixture
def serve() -> Iterator[Callable[..., Slurmd]]:
    servers: list[Slurmd] = []

    def start(*args: Any) -> Slurmd:
        servers.append(Slurmd(*args))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def body_of(version: int, job_id: int = 7) -> bytes:
    step = struct.pack(">QIII", 0, job_id, 0xFFFFFFFE, 0xFFFFFFFE) if version >= 44 << 8 else struct.pack(">I", job_id)
    return step + struct.pack(">II", 0, 3) + b"n1\0"


def reply(version: int, *, job_id: int = 7, **how: Any) -> bytes:
    """A right answer; `how` changes one thing."""
    body = body_of(version, job_id)
    payload = how.get("payload", hash_payload(version, RESPONSE_NETWORK_CALLERID, body))
    now = int(time.time()) + how.get("later_s", 0)
    token = encode_token(
        how.get("key", KEY), version, how.get("uid", 0), 0, how.get("ruid", ME), "lab", "n1", payload, now
    )
    plugin = how.get("plugin", AUTH_SLURM)
    return encode_message(version, RESPONSE_NETWORK_CALLERID, body, plugin, token)


def refusal(version: int, code: int) -> bytes:
    rest = struct.pack(">HHHIHHHI", version, 0x40, RESPONSE_SLURM_RC, 4, 0, 0, 0, code)
    return struct.pack(">I", len(rest)) + rest


def say(answer: Callable[[bytes], bytes]) -> Scenario:
    return lambda stream, request: stream.sendall(answer(request))


def version_of(request: bytes) -> int:
    return int(struct.unpack(">H", request[4:6])[0])


def ask(conf: SlurmConf, slurmd: Slurmd, version: int = V42, seconds: float = 10) -> CallerReply:
    return run(ask_node(Asker(conf, QUESTION, version, 1001), slurmd.node, soon(seconds)))


def status_of(conf: SlurmConf, slurmd: Slurmd, version: int = V42) -> str:
    with pytest.raises(CallerFault) as caught:
        ask(conf, slurmd, version)
    return caught.value.reason


@pytest.mark.parametrize("number", range(36, 46))
def test_callerid__every_version(conf: SlurmConf, serve: Callable[..., Slurmd], number: int) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))))
    assert ask(conf, slurmd, number << 8) == CallerReply(7, 0, "n1")
    message = decode_message(slurmd.seen[0])
    assert (message.version, message.plugin) == (number << 8, AUTH_SLURM)
    claims = verify_token(message.credential or "", (KEY,), 0, int(time.time()))
    assert (claims.uid, claims.ruid) == (ME, conf.step_owners[-1])
    assert claims.payload == hash_payload(message.version, message.msg_type, message.body)


def test_callerid__no_job(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    assert ask(conf, serve(say(lambda _: reply(V42, job_id=0xFFFFFFFE)))).job_id is None


@pytest.mark.parametrize("how", ["close", "reset", "rc", "rc with unknown version", "http"])
def test_callerid__steps_down_with_a_new_credential(conf: SlurmConf, serve: Callable[..., Slurmd], how: str) -> None:
    def answer(stream: socket.socket, request: bytes) -> None:
        if version_of(request) <= 40 << 8:
            stream.sendall(reply(version_of(request)))
        elif how == "rc":
            stream.sendall(refusal(43 << 8, 1007))
        elif how == "rc with unknown version":
            stream.sendall(refusal(0xFFFE, 1007))
        elif how == "http":
            stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif how == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    slurmd = serve(answer)
    assert ask(conf, slurmd) == CallerReply(7, 0, "n1")
    assert [version_of(request) >> 8 for request in slurmd.seen] == [42, 41, 40]


@pytest.mark.parametrize(("version", "tries"), [(45 << 8, 4), (38 << 8, 3), (36 << 8, 1), (0, 1), (99 << 8, 4)])
def test_callerid__gives_up_after_four_versions(
    conf: SlurmConf, serve: Callable[..., Slurmd], version: int, tries: int
) -> None:
    slurmd = serve(lambda *_: None)
    assert status_of(conf, slurmd, version) == "caller-refused"
    assert len(slurmd.seen) == tries


NEWER = 46 << 8


def test_callerid__a_newer_slurmd_is_asked_in_the_last_version_that_is_known(
    conf: SlurmConf, serve: Callable[..., Slurmd]
) -> None:
    """This node's slurmstepds and the other node's slurmd are of a release that nobody knows yet, which takes the versions
    of some releases before it."""
    slurmd = serve(say(lambda request: reply(version_of(request))))
    assert ask(conf, slurmd, NEWER) == CallerReply(7, 0, "n1")
    assert [version_of(request) >> 8 for request in slurmd.seen] == [45]


@pytest.mark.parametrize("code", [1005, 1007])
def test_callerid__a_slurmd_that_is_too_new_refuses(conf: SlurmConf, serve: Callable[..., Slurmd], code: int) -> None:
    """It takes its own version only, and says so in that. Nothing is wrong with its answer, but there is none."""
    slurmd = serve(say(lambda _: refusal(NEWER, code)))
    with pytest.raises(CallerFault) as caught:
        ask(conf, slurmd, NEWER)
    assert (caught.value.reason, caught.value.detail) == ("caller-refused", f"return code {code}")
    assert [version_of(request) >> 8 for request in slurmd.seen] == [45, 44, 43, 42]


def test_callerid__an_answer_of_an_unknown_version_is_not_read(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    data = reply(45 << 8)
    slurmd = serve(say(lambda _: data[:4] + struct.pack(">H", NEWER) + data[6:]))
    assert status_of(conf, slurmd, NEWER) == "caller-malformed"


@pytest.mark.parametrize(
    "how",
    [
        {"key": Key(b"x" * 32)},
        {"uid": 1001},
        {"ruid": ANY_UID},
        {"ruid": 1001},
        {"later_s": -HOUR_S},
        {"plugin": AUTH_MUNGE},
        {"payload": b""},
        {"payload": b"\2" + bytes(32)},
        {"payload": b"\1\x13\xac"},
    ],
)
def test_callerid__not_authentic(conf: SlurmConf, serve: Callable[..., Slurmd], how: dict[str, Any]) -> None:
    assert status_of(conf, serve(say(lambda _: reply(V42, **how)))) == "caller-untrusted"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (refusal(V42, 5003), "caller-refused"),
        (refusal(V42, 13000), "caller-refused"),
        (refusal(V42, 0)[:-4] + bytes(3), "caller-malformed"),
        (b"\x7f\xff\xff\xff", "caller-malformed"),
        (bytes(64), "caller-malformed"),
    ],
)
def test_callerid__not_an_answer(conf: SlurmConf, serve: Callable[..., Slurmd], data: bytes, status: str) -> None:
    assert status_of(conf, serve(say(lambda _: data))) == status


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer + b"\0",
        lambda answer: answer[:-1],
        lambda answer: answer[:3],
        lambda answer: answer[:4] + struct.pack(">H", 41 << 8) + answer[6:],
    ],
    ids=["junk", "cut", "no length", "another version"],
)
def test_callerid__a_right_answer_spoilt(
    conf: SlurmConf, serve: Callable[..., Slurmd], change: Callable[[bytes], bytes]
) -> None:
    assert status_of(conf, serve(say(lambda _: change(reply(V42))))) == "caller-malformed"


def test_callerid__our_own_request_sent_back(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    assert status_of(conf, serve(say(lambda request: request))) == "caller-malformed"


def test_callerid__an_answer_without_credential_is_none(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    body = body_of(V42)
    rest = struct.pack(">HHHIHHH", V42, 0x40, RESPONSE_NETWORK_CALLERID, len(body), 0, 0, 0) + body
    assert status_of(conf, serve(say(lambda _: struct.pack(">I", len(rest)) + rest))) == "caller-malformed"


def test_callerid__our_own_credential_sent_back(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    """A credential of root's that we could decode, made a moment ago, in the hands of whoever listens there."""
    for version in (36 << 8, V42):

        def reflect(request: bytes) -> bytes:
            message = decode_message(request)
            body = body_of(message.version)
            return encode_message(
                message.version, RESPONSE_NETWORK_CALLERID, body, AUTH_SLURM, message.credential or ""
            )

        assert status_of(conf, serve(say(reflect)), version) == "caller-untrusted"


def test_callerid__null_hash(conf: SlurmConf, serve: Callable[..., Slurmd]) -> None:
    slurmd = serve(say(lambda _: reply(36 << 8, payload=b"")))
    assert ask(conf, slurmd, 36 << 8).job_id == 7
    strict = replace(conf, communication_parameters=("block_null_hash",))
    assert status_of(strict, slurmd, 36 << 8) == "caller-untrusted"


@pytest.mark.parametrize("how", ["silent", "drip", "half"])
def test_callerid__costs_no_more_than_its_time(conf: SlurmConf, serve: Callable[..., Slurmd], how: str) -> None:
    done = threading.Event()

    def answer(stream: socket.socket, _: bytes) -> None:
        data = reply(V42)
        if how == "half":
            stream.sendall(data[:20])
        for byte in data if how == "drip" else b"":
            stream.sendall(bytes([byte]))
            if done.wait(0.05):
                return
        done.wait(60)

    slurmd = serve(answer)
    started = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            ask(conf, slurmd, seconds=1)
        # the whole answer of `drip` takes longer than that, and the others' never comes
        assert time.monotonic() - started < 15
    finally:
        done.set()


def test_callerid__nobody_listens(conf: SlurmConf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CallerFault) as caught:
        run(ask_node(Asker(conf, QUESTION, V42, 1001), NodeRecord("n1", "n1", "127.0.0.1", port), soon()))
    assert caught.value.reason == "caller-unreachable"


def test_callerid__no_key_here(conf: SlurmConf, serve: Callable[..., Slurmd], monkeypatch: pytest.MonkeyPatch) -> None:
    slurmd = serve(say(lambda _: reply(V42)))
    key = Path(conf.path).parent / "slurm.key"
    key.chmod(0o604)
    assert status_of(conf, slurmd) == "caller-no-credential"
    key.unlink()
    monkeypatch.setattr("slurm_adopt.system.rpc.credentials.SACK_PLACES", ("/nonexistent/sack.socket",))
    assert status_of(conf, slurmd) == "caller-no-credential"
    assert status_of(replace(conf, auth_type="auth/none"), slurmd) == "caller-no-credential"
    assert slurmd.seen == []


def test_callerid__keys(conf: SlurmConf) -> None:
    folder = Path(conf.path).parent
    assert read_keys(conf) == (KEY,)
    (folder / "slurm.jwks").write_text('{"keys":[{"alg":"HS256","kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAA"}]}')
    (folder / "slurm.jwks").chmod(0o600)
    assert read_keys(conf) == (Key(bytes(16), "a"),)
    for text, mode in (("{}", 0o600), ("x", 0o600), ('{"keys":[]}', 0o640)):
        (folder / "slurm.jwks").write_text(text)
        (folder / "slurm.jwks").chmod(mode)
        with pytest.raises(AuthFault):
            read_keys(conf)
    (folder / "slurm.jwks").unlink()
    for secret in (b"short", b"x" * 70000):
        (folder / "slurm.key").write_bytes(secret)
        with pytest.raises(AuthFault):
            read_keys(conf)


def test_callerid__who_asks(conf: SlurmConf) -> None:
    """Root's credential only where it is bound to the message; before that the user's own."""
    munge = replace(conf, auth_type="auth/munge")
    assert [speaker(munge, number << 8, 1001) for number in (36, 37, 38, 45)] == [1001, 1001, ME, ME]
    assert speaker(munge, 38 << 8, 0) == ME
    for number in (36, 37):
        assert speaker(conf, number << 8, 1001) == ME
        with pytest.raises(AuthFault, match="not bound"):
            speaker(munge, number << 8, 0)


def test_callerid__auth_info() -> None:
    assert auth_settings("") == {"": ""}
    assert auth_settings("/run/m.socket") == {"socket": "/run/m.socket"}
    assert auth_settings("socket=/run/m,ttl=5")["ttl"] == "5"


# --- the whole question ---------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection from 127.0.0.1 that the kernel does not know: as if it came from another machine."""
    monkeypatch.setattr(callerid, "is_here", lambda _: False)
    return Connection(3, 4, "127.0.0.1", 22, "127.0.0.1", 40000)


def with_node(conf: SlurmConf, slurmd: Slurmd) -> SlurmConf:
    return replace(conf, statements=parse(f"NodeName=n1 NodeAddr=127.0.0.1 Port={slurmd.node.port}").statements)


def test_find_caller__outcomes(conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection) -> None:
    def fact(slurmd: Slurmd | None, own: tuple[tuple[int, Process], ...]) -> tuple[str, int]:
        found = run(find_caller(with_node(conf, slurmd) if slurmd else conf, elsewhere, 1001, own, V42, soon()))
        assert found.source == "127.0.0.1"
        return found.status, found.job_id

    good = serve(say(lambda _: reply(V42)))
    none = serve(say(lambda _: reply(V42, job_id=0xFFFFFFFE)))
    bad = serve(say(lambda _: reply(V42, uid=5)))
    assert fact(good, ((6, INIT), (7, INIT))) == ("found", 7)
    assert fact(good, ((6, INIT),)) == ("caller-foreign", 0)
    assert fact(none, ((6, INIT),)) == ("unknown", 0)
    assert fact(bad, ((7, INIT),)) == ("caller-untrusted", 0)
    assert fact(None, ((7, INIT),)) == ("caller-not-a-node", 0)
    assert run(find_caller(conf, None, 1001, (), V42, soon())).status == "unknown"


def test_find_caller__keeps_its_deadline(conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection) -> None:
    done = threading.Event()
    slurmd = serve(lambda *_: bool(done.wait(60)))
    started = time.monotonic()
    try:
        found = run(find_caller(with_node(conf, slurmd), elsewhere, 1001, ((7, INIT),), V42, soon(1)))
        assert (found.status, found.detail) == ("caller-silent", "no answer in time")
        assert time.monotonic() - started < 30
    finally:
        done.set()


def test_find_caller__remembers_the_version(
    conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection
) -> None:
    highest = 40 << 8

    def answer(stream: socket.socket, request: bytes) -> None:
        if version_of(request) <= highest:
            stream.sendall(reply(version_of(request)))

    slurmd, memory = serve(answer), CallerMemory()

    def versions() -> list[int]:
        slurmd.seen.clear()
        fact = run(find_caller(with_node(conf, slurmd), elsewhere, 1001, ((7, INIT),), V42, soon(), memory))
        assert (fact.status, fact.job_id) == ("found", 7)
        return [version_of(request) >> 8 for request in slurmd.seen]

    assert versions() == [42, 41, 40]
    assert versions() == [40]
    # another release runs there now
    highest = 39 << 8
    assert versions() == [40, 42, 41, 39]
    assert versions() == [39]


@pytest.mark.parametrize("how", ["silent", "drip", "dropped"])
def test_find_caller__a_silent_place_is_asked_once(
    conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection, how: str
) -> None:
    done = threading.Event()

    def answer(stream: socket.socket, _: bytes) -> None:
        for byte in reply(V42) if how == "drip" else b"":
            stream.sendall(bytes([byte]))
            if done.wait(0.05):
                return
        done.wait(60)

    slurmd, memory = serve(answer), CallerMemory()
    place = with_node(conf, slurmd)
    full: list[socket.socket] = []
    if how == "dropped":
        # a queue that is full: the kernel drops the handshake's packets
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        full.append(server)
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            full.append(client)
        port = server.getsockname()[1]
        place = replace(conf, statements=parse(f"NodeName=n1 NodeAddr=127.0.0.1 Port={port}").statements)

    def asked(seconds: float, memory: CallerMemory) -> tuple[str, float]:
        started = time.monotonic()
        fact = run(find_caller(place, elsewhere, 1001, ((7, INIT),), V42, soon(seconds), memory))
        assert fact.job_id == 0
        assert fact.detail
        return fact.status, time.monotonic() - started

    try:
        # longer than what is fair: a busy machine needs some of it to make the question
        status, took_s = asked(3, memory)
        assert (status, took_s >= 3) == ("caller-silent", True)
        for _ in range(3):
            # who asked once more would learn, after this time, that nobody answers
            status, took_s = asked(8, memory)
            assert (status, took_s < 8) == ("caller-skipped", True)
    finally:
        done.set()
        for sock in full:
            sock.close()


def test_find_caller__slow_here_is_not_silent_there(
    conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever keeps munged or the key's file system busy must not make other nodes look silent."""

    def slow(*_: object) -> Any:
        yield from sleep_until(soon(30))

    slurmd, memory = serve(say(lambda _: reply(V42))), CallerMemory()
    for function in ("make_credential", "check_credential"):
        with monkeypatch.context() as patch:
            patch.setattr(callerid, function, _bounded(slow))
            fact = run(find_caller(with_node(conf, slurmd), elsewhere, 1001, ((7, INIT),), V42, soon(1.5), memory))
            assert fact.status == "caller-no-credential"
    fact = run(find_caller(with_node(conf, slurmd), elsewhere, 1001, ((7, INIT),), V42, soon(), memory))
    assert fact.status == "found"


def _bounded(task: Callable[..., Any]) -> Callable[..., Any]:
    """With the last argument as its deadline, as every task."""

    def call(*arguments: Any) -> Any:
        (outcome,) = yield from all_of([task(*arguments)], arguments[-1])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call


def test_find_caller__a_login_in_a_hurry_proves_nothing(
    conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection
) -> None:
    slow = threading.Event()

    def answer(stream: socket.socket, _: bytes) -> None:
        slow.wait(30)
        stream.sendall(reply(V42))

    slurmd = serve(answer)

    def status(seconds: float, memory: CallerMemory) -> str:
        return run(
            find_caller(with_node(conf, slurmd), elsewhere, 1001, ((7, INIT),), V42, soon(seconds), memory)
        ).status

    try:
        for _ in range(100):
            memory, begun_ns = CallerMemory(), time.monotonic_ns()
            hurried = status(0.1, memory)
            # on a busy machine the time may be up before the question is made, or only noticed when it was a fair one
            if hurried == "caller-silent" and time.monotonic_ns() - begun_ns < callerid.FAIR_NS:
                break
        else:
            pytest.fail("this machine has never asked and given up within a quarter of a second")
    finally:
        slow.set()
    assert status(10, memory) == "found"


def test_find_caller__several_slurmds_of_one_host(
    conf: SlurmConf, serve: Callable[..., Slurmd], elsewhere: Connection
) -> None:
    servers = [
        serve(say(lambda _: reply(V42, job_id=0xFFFFFFFE))),
        serve(say(lambda _: reply(V42))),
        serve(lambda *_: None),
    ]
    lines = "\n".join(f"NodeName=n{n} NodeAddr=127.0.0.1 Port={one.node.port}" for n, one in enumerate(servers))
    several = replace(conf, statements=parse(lines).statements)
    assert run(find_caller(several, elsewhere, 1001, ((7, INIT),), V42, soon())).job_id == 7


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and slurmd.pem (with its key), and another CA of the same name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("pki")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        call(
            "req",
            "-x509",
            *curve,
            "-subj",
            "/CN=cluster",
            "-days",
            "2",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
        )
    call("req", *curve, "-subj", "/CN=slurmd", "-keyout", "slurmd.key", "-out", "slurmd.csr")
    call("x509", "-req", "-in", "slurmd.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-out", "cert.pem")
    (folder / "slurmd.pem").write_text((folder / "cert.pem").read_text() + (folder / "slurmd.key").read_text())
    return folder


def tls_conf(conf: SlurmConf, ca: Path) -> SlurmConf:
    path = Path(conf.path).parent / "ca_cert.pem"
    path.write_bytes(ca.read_bytes())
    path.chmod(0o644)
    return replace(conf, tls_type="tls/s2n")


def tls_server(pki: Path) -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "slurmd.pem")
    return lambda sock: context.wrap_socket(sock, server_side=True)


def test_callerid__tls(conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))), tls_server(pki))
    secure = tls_conf(conf, pki / "ca.pem")
    assert ask(secure, slurmd, 45 << 8) == CallerReply(7, 0, "n1")
    assert len(slurmd.seen) == 1


def test_callerid__tls_of_another_ca(conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))), tls_server(pki))
    assert status_of(tls_conf(conf, pki / "other.pem"), slurmd, 45 << 8) == "caller-untrusted"
    assert slurmd.seen == []


def test_callerid__tls_with_somebody_who_speaks_none(conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path) -> None:
    def plain(sock: socket.socket) -> socket.socket:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return sock

    assert status_of(tls_conf(conf, pki / "ca.pem"), serve(say(lambda _: b""), plain), 45 << 8) == "caller-untrusted"


def test_callerid__tls_is_not_spoken_to_older_versions(
    conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path
) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))))
    assert ask(tls_conf(conf, pki / "ca.pem"), slurmd, 42 << 8).job_id == 7


@pytest.mark.parametrize("spoil", ["missing", "open", "nonsense"])
def test_callerid__tls_needs_a_good_ca_file(
    conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path, spoil: str
) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))), tls_server(pki))
    secure = tls_conf(conf, pki / "ca.pem")
    path = Path(conf.path).parent / "ca_cert.pem"
    if spoil == "missing":
        path.unlink()
    elif spoil == "open":
        path.chmod(0o646)
    else:
        path.write_text("nonsense")
    assert status_of(secure, slurmd, 45 << 8) == "caller-untrusted"


@pytest.mark.parametrize("ca", ["missing", "other"])
@pytest.mark.parametrize("parameters", ["load_system_certificates", "load_system_certificates,ca_cert_file=CA", ""])
def test_callerid__tls_with_system_certificates_names_the_option_that_helps(
    conf: SlurmConf, serve: Callable[..., Slurmd], pki: Path, parameters: str, ca: str
) -> None:
    slurmd = serve(say(lambda request: reply(version_of(request))), tls_server(pki))
    path = Path(conf.path).parent / "ca_cert.pem"
    secure = replace(tls_conf(conf, pki / "other.pem"), tls_parameters=parameters.replace("CA", str(path)))
    if ca == "missing":
        path.unlink()
    with pytest.raises(CallerFault) as caught:
        ask(secure, slurmd, 45 << 8)
    assert ("with ca_cert_file=" in caught.value.detail) == (parameters == "load_system_certificates")
