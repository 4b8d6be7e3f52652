# SPDX-License-Identifier: Apache-2.0
"""Asking for a user's jobs where a slurmctld is not one: whatever it says or does not say, there is an end."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.node.system.daemon import Daemon, Scenario

from slurm_adopt.record import replace
from slurm_adopt.system.rpc.controller import NoAnswer, UserJobs, query_user_jobs
from slurm_adopt.system.rpc.munge import MungeWorkers
from slurm_adopt.system.slurm.conf import SlurmConf, read_slurm_conf
from slurm_adopt.system.tasks.task import run
from slurm_adopt.wire.callerid import AUTH_SLURM, RESPONSE_SLURM_RC, decode_message
from slurm_adopt.wire.slurm_token import Key
from slurm_adopt.wire.user_jobs_question import ANSWER_CAP, REQUEST_USER_JOBS, RESPONSE_JOBS, encode_request

KEY = Key(b"k" * 32)
ME = os.geteuid()
VECTORS = Path(__file__).parents[2] / "vectors"
RECORDED = json.loads((VECTORS / "user-jobs-24.11.5.json").read_text())
#: What 26.05.5 says in the version of 25.05.
LAST = json.loads((VECTORS / "user-jobs-26.05.5.json").read_text())
UID = int(RECORDED["uid"])
V40, V42, V43 = 40 << 8, 42 << 8, 43 << 8


@pytest.fixture
def serve() -> Iterator[Callable[[Scenario], Daemon]]:
    servers: list[Daemon] = []

    def start(scenario: Scenario) -> Daemon:
        servers.append(Daemon(scenario))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., SlurmConf]:
    def make(*servers: Daemon) -> SlurmConf:
        (port,) = {server.port for server in servers}
        path = tmp_path / "slurm.conf"
        path.write_text(
            f"ClusterName=lab\nAuthType=auth/slurm\nSlurmUser=root\nSlurmctldHost=c(127.0.0.1)\nSlurmctldPort={port}\n"
        )
        path.chmod(0o644)
        (tmp_path / "slurm.key").write_bytes(KEY.secret)
        (tmp_path / "slurm.key").chmod(0o600)
        return replace(read_slurm_conf((str(path),)), step_owners=(0, ME) if ME else (0,))

    return make


def answer(version: int, body: bytes, kind: int = RESPONSE_JOBS) -> bytes:
    rest = struct.pack(">HHHIHHH", version, 0x40, kind, len(body), 0, 0, 0) + body
    return struct.pack(">I", len(rest)) + rest


def body_of(version: int) -> bytes:
    return bytes.fromhex((LAST if version == V43 else RECORDED)["answers"][str(version >> 8)])


def version_of(request: bytes) -> int:
    return int(struct.unpack(">H", request[4:6])[0])


def say(make: Callable[[bytes], bytes]) -> Scenario:
    return lambda stream, request: stream.sendall(make(request))


def ask(conf: SlurmConf, known: int = 0, seconds: float = 10, uid: int = UID) -> UserJobs:
    workers = MungeWorkers()
    try:
        return run(query_user_jobs(conf, workers, known, uid, time.monotonic_ns() + int(seconds * 1e9)))
    finally:
        workers.close()


def test_controller_hostile__what_is_asked_and_answered(conf: Any, serve: Any) -> None:
    server = serve(say(lambda request: answer(version_of(request), body_of(version_of(request)))))
    assert [ask(conf(server), known).version for known in (0, V40, 99)] == [V42, V40, V42]
    message = decode_message(server.seen[0])
    assert (message.version, message.msg_type, message.plugin) == (V42, REQUEST_USER_JOBS, AUTH_SLURM)
    assert message.body == encode_request(UID)


def test_controller_hostile__an_earlier_one_is_asked_in_its_version(conf: Any, serve: Any) -> None:
    def earlier(stream: socket.socket, request: bytes) -> None:
        if version_of(request) == V40:
            stream.sendall(answer(V40, body_of(V40)))

    server = serve(earlier)
    assert ask(conf(server)).version == V40
    assert [version_of(request) for request in server.seen] == [V42, V40]


def test_controller_hostile__a_newer_one_is_asked_in_the_last_version_that_is_known(conf: Any, serve: Any) -> None:
    """A slurmctld of a release that nobody knows yet: it refuses older versions in its own."""

    def newer(request: bytes) -> bytes:
        if version_of(request) == V43:
            return answer(V43, body_of(V43))
        return answer(46 << 8, struct.pack(">I", 1007), RESPONSE_SLURM_RC)

    server = serve(say(newer))
    assert ask(conf(server), uid=LAST["uid"]).version == V43
    assert [version_of(request) for request in server.seen] == [V42, V40, V43]
    assert ask(conf(server), V43, uid=LAST["uid"]).version == V43
    assert len(server.seen) == 4


@pytest.mark.parametrize("code", [1005, 1007])
def test_controller_hostile__a_refusal_that_may_mean_the_version(conf: Any, serve: Any, code: int) -> None:
    server = serve(say(lambda _: answer(V42, struct.pack(">I", code), RESPONSE_SLURM_RC)))
    with pytest.raises(NoAnswer):
        ask(conf(server))
    # version 38 came before auth/slurm
    assert [version_of(request) for request in server.seen] == [V42, V40, V43]


def test_controller_hostile__another_refusal_ends_it(conf: Any, serve: Any) -> None:
    server = serve(say(lambda _: answer(V42, struct.pack(">I", 2017), RESPONSE_SLURM_RC)))
    with pytest.raises(NoAnswer, match="return code 2017"):
        ask(conf(server))
    assert len(server.seen) == 1


def drip(stream: socket.socket, _: bytes) -> None:
    """A byte now and then, for ever."""
    for byte in answer(V42, body_of(V42)):
        stream.sendall(bytes([byte]))
        if threading.Event().wait(0.02):
            return


@pytest.mark.parametrize("scenario", [lambda stream, _: stream.recv(1), drip], ids=["silent", "drips"])
def test_controller_hostile__the_time_is_kept(conf: Any, serve: Any, scenario: Scenario) -> None:
    with pytest.raises(NoAnswer, match="Silence") as caught:
        ask(conf(serve(scenario)), seconds=0.3)
    assert caught.value.is_silent


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 1000,
        struct.pack(">I", ANSWER_CAP + 1),
        answer(V42, b""),
        answer(V42, body_of(V40)),
        answer(V42, body_of(V42)[:-900]),
        answer(V42, struct.pack(">IQQ", 1 << 31, 0, 0)),
        answer(V40, body_of(V42)),
        answer(V42, body_of(V42), 2005),
        answer(V42, body_of(V42))[:-1],
    ],
    ids=[
        "noise",
        "too long",
        "empty",
        "another layout",
        "cut",
        "too many",
        "another version",
        "another type",
        "ends early",
    ],
)
def test_controller_hostile__no_answer(conf: Any, serve: Any, said: bytes) -> None:
    """It concerns the one user who was asked for: another's answer may be right."""
    with pytest.raises(NoAnswer) as caught:
        ask(conf(serve(say(lambda _: said))))
    assert not caught.value.is_silent


def test_controller_hostile__the_jobs_of_somebody_else(conf: Any, serve: Any) -> None:
    with pytest.raises(NoAnswer):
        ask(conf(serve(say(lambda request: answer(version_of(request), body_of(version_of(request)))))), uid=UID + 1)


def test_controller_hostile__nobody_listens(conf: Any, serve: Any) -> None:
    server = serve(lambda *_: None)
    found = conf(server)
    server.close()
    with pytest.raises(NoAnswer) as caught:
        ask(found, seconds=5)
    assert caught.value.is_silent
