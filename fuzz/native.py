# SPDX-License-Identifier: Apache-2.0
"""Builds the C targets, and the module's parsers as a library for comparison with Python's."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCES = ROOT / "src/pam"
#: As meson builds it.
MODULE = re.findall(r"^ *'(\w+)\.c',$", (SOURCES / "meson.build").read_text(), re.MULTILINE)
WORLD = ("module_fuzz", "module/kernel", "module/process", "module/libpam")
HELPER = "/usr/libexec/slurm-adopt/helper"
SANITIZERS = "address,undefined"
#: What the module may call without this world noticing: it touches nothing but its arguments.
PURE = re.compile(
    r"__(asan|ubsan|sanitizer|sancov|wrap|start|stop)_?\w*|(mem|str|sig(add|empty|fill|is))\w+|v?snprintf|inet_ntop"
    r"|free|__cmsg_nxthdr|__errno_location|__stack_chk_fail|pam_\w+|_GLOBAL_OFFSET_TABLE_"
)


class BuildError(Exception):
    """A target cannot be built; the message says why."""


def find_clang() -> str | None:
    """libFuzzer comes with it."""
    return next(
        (found for name in ("clang", "clang-14", "clang-16", "clang-19") if (found := shutil.which(name))), None
    )


def _run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{words[0]} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def _flags(compiler: str) -> list[str]:
    flags = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]
    flags += [f'-DSA_HELPER="{HELPER}"', f"-I{SOURCES}", f"-I{HERE}", "-fno-sanitize-recover=undefined"]
    coverage = "fuzzer-no-link," if "clang" in Path(compiler).name else ""
    return [*flags, f"-fsanitize={coverage}{SANITIZERS}"]


def _end(compiler: str) -> list[str]:
    return [f"-fsanitize=fuzzer,{SANITIZERS}"] if "clang" in Path(compiler).name else [f"-fsanitize={SANITIZERS}"]


def build_module(folder: Path, compiler: str) -> Path:
    """The whole module in its world; with a compiler that has no libFuzzer a program that replays files (replay.c)."""
    objects = []
    for name in MODULE:
        objects.append(folder / f"{name}.o")
        _run(compiler, *_flags(compiler), "-c", SOURCES / f"{name}.c", "-o", objects[-1])
    world_text = "".join((HERE / f"{name}.c").read_text() for name in WORLD)
    wrapped = sorted(set(re.findall(r"__wrap_(\w+)\(", world_text)))
    _run("ld", "-r", *(f"--wrap={name}" for name in wrapped), *objects, "-o", folder / "all.o")
    undefined = set(_run("nm", "-u", "--format=just-symbols", folder / "all.o").split())
    real = sorted(name for name in undefined if not PURE.fullmatch(name))
    if real:
        raise BuildError(f"the module calls what its world does not know: {', '.join(real)} (fuzz/module/world.h)")
    world = [HERE / f"{name}.c" for name in WORLD]
    if "clang" not in Path(compiler).name:
        world.append(HERE / "replay.c")
    _run(compiler, *_flags(compiler), *world, folder / "all.o", *_end(compiler), "-o", folder / "module_fuzz")
    return folder / "module_fuzz"


def build_reply(folder: Path, compiler: str) -> Path:
    """The reply parser alone."""
    sources = [HERE / "reply_fuzz.c", SOURCES / "reply.c"]
    if "clang" not in Path(compiler).name:
        sources.append(HERE / "replay.c")
    _run(compiler, *_flags(compiler), *sources, *_end(compiler), "-o", folder / "reply_fuzz")
    return folder / "reply_fuzz"


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shim.so")
        sources = [HERE / "module/shim.c", SOURCES / "reply.c", SOURCES / "options.c"]
        _run("cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{SOURCES}", *sources, "-o", path)
        library = ctypes.CDLL(str(path))
    library.shim_reply.restype = library.shim_options.restype = ctypes.c_long
    library.shim_reply.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return library


ROOM = 16384


def _lines(buffer: ctypes.Array[ctypes.c_char], length: int) -> list[str]:
    return buffer.raw[:length].decode("utf-8", "surrogateescape").split("\0")[:-1]


def module_reads_reply(packet: bytes, fds: int) -> list[str] | None:
    """What src/pam/reply.c makes of it, None if it refuses it."""
    buffer = ctypes.create_string_buffer(ROOM)
    length = _library().shim_reply(packet, len(packet), fds, buffer, ROOM)
    return None if length < 0 else _lines(buffer, length)


def module_reads_options(args: list[str]) -> list[str]:
    """What src/pam/options.c makes of the words of a PAM line."""
    buffer = ctypes.create_string_buffer(ROOM)
    words = (ctypes.c_char_p * len(args))(*[arg.encode("utf-8", "surrogateescape") for arg in args])
    length = _library().shim_options(len(args), words, buffer, ctypes.c_size_t(ROOM))
    return _lines(buffer, length)
