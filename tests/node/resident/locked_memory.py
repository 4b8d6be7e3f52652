# SPDX-License-Identifier: Apache-2.0
"""A process whose memory map is locked, so that whoever reads its /proc/PID/environ waits until killed (seen on 6.18).

Run in a node. `serve FILE` (root) mounts a FUSE file that is never read to the end, as a user may with fusermount;
`lock FILE` (a user) then has one thread wait for it inside the kernel with the map locked, and another queue for it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
INIT, GETATTR, OPEN, READ = 26, 3, 14, 15
PAGE = 4096


def serve(path: str) -> None:
    if not os.path.exists("/dev/fuse"):
        os.mknod("/dev/fuse", 0o020600, os.makedev(10, 229))
    open(path, "w").close()
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=100000,user_id=0,group_id=0,allow_other".encode()
    if LIBC.mount(b"fuse", path.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "no FUSE here")
    answers = {
        INIT: struct.pack("=IIIIHHI", 7, 31, 65536, 0, 12, 10, PAGE).ljust(64, b"\0"),
        GETATTR: struct.pack("=QII6Q10I", 3600, 0, 0, 1, PAGE, 8, 0, 0, 0, 0, 0, 0, 0o100444, 1, 0, 0, 0, PAGE, 0),
        OPEN: bytes(16),
    }
    while True:
        request = os.read(fd, 1 << 17)
        _, opcode, unique = struct.unpack_from("=IIQ", request)
        if opcode in answers:
            os.write(fd, struct.pack("=IiQ", 16 + len(answers[opcode]), 0, unique) + answers[opcode])
        elif opcode == READ:
            print("locked", flush=True)


def lock(path: str) -> None:
    os.stat(path)  # its size is not known before
    size, offset = ctypes.c_size_t(PAGE), ctypes.c_size_t(0)
    place = LIBC.mmap(None, size, 1, 2, os.open(path, os.O_RDONLY), offset)
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    threading.Thread(target=os.pread, args=(memory, 8, place), daemon=True).start()
    time.sleep(0.5)
    LIBC.mmap(None, size, 3, 0x22, -1, offset)  # never returns: waits to lock the map for writing


if __name__ == "__main__":
    {"serve": serve, "lock": lock}[sys.argv[1]](sys.argv[2])
