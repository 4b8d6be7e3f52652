# SPDX-License-Identifier: Apache-2.0
"""In slurmd's place: listens on its port as an ordinary user, keeps what it is sent, and answers as it is told.

Runs inside an isolated node, where this project is installed: impostor.py HOW PORT JOB KEEP
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, "/usr/lib/slurm-adopt")

from slurm_adopt.wire.callerid import RESPONSE_NETWORK_CALLERID, decode_message, encode_message
from slurm_adopt.wire.rpc_hash import hash_payload


def answer(how: str, request: bytes, job: int) -> bytes:
    """What HOW says, at once or (drip) to be sent slowly."""
    if how == "silent":
        return b""
    if how == "garbage":
        return os.urandom(4096)
    if how == "endless":
        return b"\x7f\xff\xff\xff" + bytes(4096)
    message = decode_message(request)
    version = message.version
    step = struct.pack(">QIII", 0, job, 0xFFFFFFFE, 0xFFFFFFFE) if version >= 44 << 8 else struct.pack(">I", job)
    body = step + struct.pack(">II", 0, 6) + b"node1\0"
    credential = message.credential or ""
    if how != "replay":
        # as good as the user can make it: bound to this very answer, and for root's eyes
        payload = hash_payload(version, RESPONSE_NETWORK_CALLERID, body)
        done = subprocess.run(["munge", "-u", "0"], input=payload, stdout=subprocess.PIPE, check=True)
        credential = done.stdout.decode("ascii").strip()
    return encode_message(version, RESPONSE_NETWORK_CALLERID, body, message.plugin or 0, credential)


def read_message(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < struct.unpack(">I", data[:4])[0] + 4:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


def main(how: str, port: str, job: str, keep: str) -> None:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    server = socket.create_server(("", int(port)), family=family, dualstack_ipv6=family == socket.AF_INET6)
    print("listening", flush=True)
    while True:
        sock, _ = server.accept()
        request = read_message(sock)
        with open(keep, "wb") as file:
            file.write(request)
        try:
            data = answer(how, request, int(job))
            if how == "drip":
                for byte in data:
                    sock.sendall(bytes([byte]))
                    time.sleep(0.02)
            elif data:
                sock.sendall(data)
            sock.recv(1)  # until the asker has given up
        except OSError:
            continue
        finally:
            sock.close()


main(*sys.argv[1:])
