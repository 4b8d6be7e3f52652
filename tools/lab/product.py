# SPDX-License-Identifier: Apache-2.0
"""This checkout's product, built on the host and installed into a machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.machine import LabError, Machine, wait_for
from lab.node import Node
from lab.root import cache_dir, host_release

CHECKOUT = Path(__file__).resolve().parents[2]
LOGIN_SOCKET, ADMIN_SOCKET = "/run/slurm-adopt/login.sock", "/run/slurm-adopt/admin.sock"
"""Of the resident service."""
NOT_BUILT = ("build*", ".*", "tests", "bench", "fuzz", "packaging", "lab", "__pycache__")
"""Names that the build reads nothing from."""
BUILD_PACKAGES = ("gcc", "libc6-dev", "libpam0g-dev", "pkg-config", "ninja-build")


def build(options: Sequence[str] = ()) -> Path:
    """Build this checkout with meson, outside of it, and return the build directory.

    options: of `meson setup` ("-Db_sanitize=address"); each different list has a build directory of its own.
    Only what changed is built again. Raises LabError with meson's output.
    """
    tag = hashlib.sha256("\0".join([str(CHECKOUT), *options]).encode()).hexdigest()[:12]
    directory = cache_dir() / "builds" / tag
    directory.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "build.ninja").exists():
            _meson("setup", str(directory), str(CHECKOUT), "--prefix=/usr", "-Dtests=false", *options)
        _meson("compile", "-C", str(directory))
    return directory


@contextlib.contextmanager
def serving(machine: Machine, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The resident service runs in the machine, and ends with the block at once, as if killed.

    more: further arguments, e.g. "--audit-file", "/run/lab/audit".
    """
    machine.run(["rm", "-f", LOGIN_SOCKET, ADMIN_SOCKET])
    argv = ["/usr/bin/slurm-adopt", "serve", "--listen", LOGIN_SOCKET, "--no-audit-journal", *more]
    with machine.popen(argv) as service:
        try:
            wait_for(machine.path(ADMIN_SOCKET).exists, "the service to listen")  # the last one that it makes
            yield service
        finally:
            service.kill()  # the service goes with what carries it
            service.wait()
            machine.run(["rm", "-f", LOGIN_SOCKET, ADMIN_SOCKET])


@contextlib.contextmanager
def installed(suite: str | None = None, options: Sequence[str] = ()) -> Iterator[Path]:
    """What this checkout installs, as a tree; no other process of this checkout replaces it meanwhile.

    suite: another release than the host's: built on a machine of it, as its packages would be. (A module built on
    the host may need a newer glibc than that release has.) Each state of the sources has a tree of its own, so that
    nothing is built or installed twice.
    """
    name = suite or host_release()[1]
    sources = sorted(_files(CHECKOUT))
    digest = hashlib.sha256("\0".join(options).encode())
    for path in sources:
        digest.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes())
    # of each checkout's own: others remove only theirs
    checkout = hashlib.sha256("\0".join([str(CHECKOUT), *options]).encode()).hexdigest()[:8]
    tree = cache_dir() / "builds" / f"{name}-{checkout}-{digest.hexdigest()[:12]}"
    tree.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{tree.parent}/{name}-{checkout}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not tree.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not tree.exists():
                for old in tree.parent.glob(f"{name}-{checkout}-*"):
                    shutil.rmtree(old)
                partial = tree.with_name(f".{tree.name}")
                shutil.rmtree(partial, ignore_errors=True)
                if suite is None:
                    _install_here(partial, options)
                else:
                    _install_there(suite, sources, partial, options)
                partial.rename(tree)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield tree


def _install_here(target: Path, options: Sequence[str]) -> None:
    directory = build(options)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # meson writes a log into the build directory
        _meson("install", "-C", str(directory), "--no-rebuild", "--destdir", str(target))


def _install_there(suite: str, sources: Sequence[Path], target: Path, options: Sequence[str]) -> None:
    with Machine(suite=suite, packages=BUILD_PACKAGES) as builder:
        for path in sources:
            builder.install(path, f"/src/{path.relative_to(CHECKOUT)}")
        _build_inside(builder, options)
        shutil.copytree(builder.path("/out"), target, symlinks=True)


def _files(top: Path) -> Iterator[Path]:
    for path in top.iterdir():
        if any(path.match(pattern) for pattern in NOT_BUILT):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _build_inside(builder: Machine, options: Sequence[str]) -> None:
    """With the host's meson, a pure Python program: an old release's own is too old."""
    shebang = Path(shutil.which("meson") or "/usr/bin/meson").read_text().splitlines()[0][2:].strip()
    where = [*shebang.split(), "-c", "import mesonbuild; print(mesonbuild.__path__[0])"]
    mesonbuild = subprocess.run(where, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    builder.install(mesonbuild, "/opt/meson/mesonbuild")
    builder.write("/opt/meson/meson.py", "import sys\nfrom mesonbuild.mesonmain import main\nsys.exit(main())\n")
    # Where PAM looks: /lib and /usr/lib differ in a root of Debian 11. (Without dpkg-dev meson would take lib64.)
    multiarch = builder.run(["gcc", "-print-multiarch"]).stdout.strip()
    library = "/usr/lib" if builder.path("/lib").is_symlink() else "/lib"
    pamlibdir = f"{library}/{multiarch}/security"
    for arguments in (
        ["setup", "/build", "/src", "--prefix=/usr", "-Dtests=false", f"-Dpamlibdir={pamlibdir}", *options],
        ["compile", "-C", "/build"],
        ["install", "-C", "/build", "--no-rebuild", "--destdir", "/out"],
    ):
        builder.run(["python3", "/opt/meson/meson.py", *arguments], timeout=300)


def install_product(machine: Machine, options: Sequence[str] = ()) -> None:
    """Install this checkout into a machine, as `make install DESTDIR=` does; PAM files are not touched.

    From then on a PAM line's plain `pam_slurm_adopt.so` is ours. To be called again after a change.
    With SLURM_ADOPT_PACKAGE=/path/to/slurm-adopt.deb in the environment that file is installed instead.
    """
    if package := os.environ.get("SLURM_ADOPT_PACKAGE"):
        install_package(machine, Path(package))
        return
    suite = None if machine.suite == host_release()[1] else machine.suite
    with installed(suite, options) as tree:
        for top in tree.iterdir():  # one by one: /lib may be a symbolic link there
            subprocess.run(["cp", "-a", f"{top}/.", str(machine.path(f"/{top.name}/"))], check=True)


def install_package(machine: Machine, package: Path) -> None:
    """Install a .deb in place of the original's package. What tests look for lies where `make install` puts it, too."""
    inside = f"/var/tmp/{package.name}"
    machine.install(package, inside)
    machine.run(["dpkg", "--install", inside], timeout=300)
    machine.run("cd /usr/lib/slurm-adopt && ln -sfn current/slurm_adopt . && ln -sfn current/oneshot.bundle .")


STRICT = "required pam_slurm_adopt.so profile=strict"
"""The PAM line that the documentation recommends; here it is last in the account stack, too, as Slurm's is."""


def use_product(node: Node, line: str = STRICT) -> None:
    """Install this checkout into a node and put it last in sshd's account and session stacks."""
    install_product(node)
    use_strict_lines(node, line)


def use_strict_lines(node: Node, line: str = STRICT) -> None:
    node.pam("sshd", account=[line], session=[line])


def _meson(*arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("DESTDIR", "PYTHONPATH")}
    done = subprocess.run(
        ["meson", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"meson {arguments[0]} failed:\n{done.stdout[-4000:]}")
