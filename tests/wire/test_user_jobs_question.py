# SPDX-License-Identifier: Apache-2.0
"""Which jobs a user has, as slurmctld of three releases has answered (recorded by tools/record-user-jobs)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tests.wire.recorded_jobs import ANSWERS, RECORDED

from slurm_adopt.wire.callerid import Message
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.hostlist import expand
from slurm_adopt.wire.user_jobs_question import (
    JOB_CAP,
    MARK_CAP,
    RESPONSE_JOBS,
    JobPlace,
    decode_reply,
    encode_request,
)


def message(body: bytes, version: int, kind: int = RESPONSE_JOBS) -> Message:
    return Message(version << 8, 0x44, kind, None, None, body)


def test_user_jobs_question__request() -> None:
    assert encode_request(1501).hex() == "000005dd0000"
    for bad in (0, -1, 0xFFFFFFFE):
        with pytest.raises(LocalProtocolError):
            encode_request(bad)


def test_user_jobs_question__every_layout_is_recorded() -> None:
    assert {int(version) for vector in RECORDED for version in vector["answers"]} == {38, 40, 42, 43}


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
def test_user_jobs_question__nodes_are_those_that_squeue_shows(vector: Any, version: int, body: bytes) -> None:
    now_s, places = decode_reply(message(body, version), vector["uid"])
    shown = sorted(nodes for _, *names in vector["jobs"] for nodes in names or [""])
    assert sorted(place.nodes for place in places) == shown
    over = [place for place in places if 0 < place.end_s <= now_s]
    assert [place.nodes for place in over] == [names[0] for state, *names in vector["jobs"] if state == "COMPLETED"]
    assert {len(list(expand(place.nodes))) for place in places} == {0, 1, 2}


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
def test_user_jobs_question__truncated(vector: Any, version: int, body: bytes) -> None:
    """A record's end that is not read may be missing; nothing else may."""
    whole = decode_reply(message(body, version), vector["uid"])
    for cut in range(len(body)):
        try:
            assert decode_reply(message(body[:cut], version), vector["uid"]) == whole
            assert len(body) - cut < 700
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
def test_user_jobs_question__of_another_user_or_number_or_version(vector: Any, version: int, body: bytes) -> None:
    count = int.from_bytes(body[:4], "big")
    others = {38: 40, 40: 38, 42: 38, 43: 40}
    wrong = [
        (message(body, version), vector["uid"] + 1),
        (message(struct.pack(">I", count + 1) + body[4:], version), vector["uid"]),
        (message(struct.pack(">I", count - 1) + body[4:], version), vector["uid"]),
        (message(struct.pack(">I", JOB_CAP + 1) + body[4:], version), vector["uid"]),
        (message(body, others[version]), vector["uid"]),
        (message(body, 44), vector["uid"]),
        (message(body, version, 2005), vector["uid"]),
    ]
    for answer, uid in wrong:
        with pytest.raises(RemoteProtocolError):
            decode_reply(answer, uid)


def test_user_jobs_question__no_jobs() -> None:
    body = struct.pack(">IQQ", 0, 1795829337, 0)
    for version in (38, 40, 42, 43):
        assert decode_reply(message(body, version), 1501) == (1795829337, ())


def record_of_24_11(uid: int, nodes: bytes, cluster: bytes = b"lab") -> bytes:
    """The stretch that is read, from the user's number on."""

    def text(value: bytes) -> bytes:
        return struct.pack(">I", len(value) + 1) + value + b"\0" if value else bytes(4)

    start = struct.pack(">I", uid) + text(b"alice") + bytes(12) + bytes(16)
    return start + struct.pack(">QQ", 99, 0) + text(cluster) + text(nodes) + bytes(4) + text(b"main")


def test_user_jobs_question__a_stretch_that_was_made() -> None:
    body = struct.pack(">IQQ", 1, 50, 0) + record_of_24_11(1501, b"n[1-9]")
    assert decode_reply(message(body, 42), 1501) == (50, (JobPlace("n[1-9]", 99),))


@pytest.mark.parametrize(
    ("nodes", "cluster"),
    [(b"n\x1b[2J", b"lab"), (b"n1\0x", b"lab"), (b"n\xff", b"lab"), (b"n1", b""), (b"x" * 20000, b"l")],
)
def test_user_jobs_question__what_is_no_name(nodes: bytes, cluster: bytes) -> None:
    body = struct.pack(">IQQ", 1, 50, 0) + record_of_24_11(1501, nodes, cluster)
    with pytest.raises(RemoteProtocolError):
        decode_reply(message(body, 42), 1501)


def test_user_jobs_question__nothing_but_the_users_number() -> None:
    """Whoever is in slurmctld's place cannot keep us busy with it."""
    body = struct.pack(">IQQ", 3, 50, 0) + struct.pack(">I", 1501) * 50_000
    with pytest.raises(RemoteProtocolError, match=f"more than {MARK_CAP} times"):
        decode_reply(message(body, 42), 1501)
