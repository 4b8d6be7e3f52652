# SPDX-License-Identifier: Apache-2.0
"""Asking the service for users, whatever others do to its socket."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurm_adopt.cli.user_client import ask
from slurm_adopt.wire.user_exchange import UserReply, UserRequest, encode_user_reply

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the service is believed only if it is root's")


def test_user_client__waits_its_turn_where_others_fill_the_backlog(tmp_path: Path) -> None:
    path = str(tmp_path / "user.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late,
        ThreadPoolExecutor(1) as pool,
    ):
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(path)
        reply = pool.submit(ask, UserRequest("clear"), path)
        listener.accept()[0].close()
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.send(encode_user_reply(UserReply("ok", "user-preference-cleared", "done")))
        assert reply.result(30).text == "done"
