# SPDX-License-Identifier: Apache-2.0
"""Asking the service for users."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import NoReturn

from ..wire.errors import RemoteProtocolError
from ..wire.fields import PACKET_CAP
from ..wire.user_exchange import UserReply, UserRequest, decode_user_reply, encode_user_request
from .main import CommandError, die

SOCKET = "/run/slurm-adopt/user.sock"
WAIT_S = 25
NOT_THERE = "an administrator can start it: systemctl enable --now slurm-adopt-users.socket"


class ServiceAbsentError(CommandError):
    """The service for users does not run on this node."""


def ask(request: UserRequest, path: str = SOCKET) -> UserReply:
    """The service's answer; ends the command if there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            # not settimeout(), with which connect(2) fails at once where others fill the backlog: it waits its turn
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                client.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", WAIT_S, 0))
            client.connect(path)
            peer = struct.unpack("=iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if peer[1] != 0:
                die(f"{path} is not root's, but uid {peer[1]}'s")
            # "too many requests" is answered, and the connection closed, before anything is read
            with contextlib.suppress(BrokenPipeError):
                client.sendall(encode_user_request(request))
            return decode_user_reply(client.recv(PACKET_CAP + 1))
    except (FileNotFoundError, ConnectionRefusedError):
        raise ServiceAbsentError(f"the service for users is not running on this node ({path})", NOT_THERE) from None
    except BlockingIOError:
        die("the service for users did not answer in time", "many ask it at the moment: please try again")
    except (OSError, RemoteProtocolError) as error:
        die(f"no answer from the service for users: {error}")


def ask_ok(request: UserRequest, path: str) -> UserReply:
    """Call `ask`, and end the command on a refusal."""
    reply = ask(request, path)
    if reply.result != "ok":
        refuse(reply)
    return reply


def refuse(reply: UserReply) -> NoReturn:
    """End the command with what the service said."""
    left = "; ".join(reply.left)
    die(reply.text or reply.reason, f"not moved: {left}" if left else "")
