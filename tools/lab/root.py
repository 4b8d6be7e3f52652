# SPDX-License-Identifier: Apache-2.0
"""The private root: a small Debian or Ubuntu with Slurm, munge and OpenSSH, built once, then only read.

A node mounts it as the lower layer of an overlay whose upper layer is a tmpfs, so that nothing a test
does reaches it. It lies outside the checkout, because a checkout is searched by tools that must not find
a whole operating system in it. The mirror comes from apt's own configuration and is not kept anywhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PACKAGES = (
    "slurm-wlm",
    "slurmctld",
    "slurmd",
    "slurm-client",
    "munge",
    "openssh-server",
    "openssh-client",
    "libpam-slurm-adopt",
    "libpam-modules",
    "pamtester",
    "python3",
    "iproute2",
    "nftables",
    "procps",
    "strace",
    "sshpass",
    "expect",
)
RECIPE = 1
"""Part of the cache's name: raise it when the way of building changes, not only the package list."""

_KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
_COMPONENTS = {"debian": "main", "ubuntu": "main universe"}


class RootError(RuntimeError):
    """The private root cannot be built; the message says what to do."""


@dataclass(frozen=True)
class _Archive:
    uri: str
    keyring: str
    components: str


def cache_dir() -> Path:
    return Path(os.environ.get("SLURM_ADOPT_CACHE") or "/var/cache/slurm-adopt")


def ensure_root(suite: str | None = None, extra: Sequence[str] = ()) -> Path:
    """The directory of the private root of `suite`, built if need be.

    Default: SLURM_ADOPT_SUITE of the environment, else the machine's own release.

    `extra` are further packages; each different set is a root of its own. Building takes about half a
    minute and shows its progress on stderr. Raises RootError.
    """
    distribution, own_suite = host_release()
    suite = suite or os.environ.get("SLURM_ADOPT_SUITE") or own_suite
    packages = sorted({*PACKAGES, *extra})
    tag = hashlib.sha256("\n".join([str(RECIPE), os.uname().machine, *packages]).encode()).hexdigest()[:12]
    roots = cache_dir() / "roots"
    target = roots / f"{suite}-{tag}"
    if target.is_dir():
        return target
    roots.mkdir(parents=True, exist_ok=True)
    with _lock(roots / f".{suite}.lock", f"another build of the {suite} root"):
        if not target.is_dir():
            for stale in roots.glob(f"{suite}-{tag}.partial-*"):  # a builder was killed
                shutil.rmtree(stale, ignore_errors=True)
            _build(suite, packages, archive_of(distribution, own_suite), target)
    return target


def host_release() -> tuple[str, str]:
    """(distribution, suite) of this machine: ("debian", "bookworm"). Derivatives count as their parent."""
    fields = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        fields[key] = value.strip("\"'")
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    suite = fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME")
    for distribution in ("ubuntu", "debian"):
        if distribution in names and suite:
            return distribution, suite
    raise RootError("the isolated node needs a Debian or Ubuntu host (mmdebstrap and apt)")


def archive_of(distribution: str, own_suite: str) -> _Archive:
    """The archive this machine installs its own release from, as apt itself reports it."""
    listing = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(RELEASE)|$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(SIGNED_BY)",
            "Identifier: Packages",
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found: list[_Archive] = []
    for line in listing.splitlines():
        release, origin, component, uri, keyring = line.split("|", 4)
        if release != own_suite or component != "main":
            continue
        if not Path(keyring).is_file():
            keyring = _KEYRINGS[distribution]
        archive = _Archive(uri, keyring, _COMPONENTS[distribution])
        # a third party's repository may carry the same suite name; the distribution's own goes first
        found.insert(0 if origin.lower() == distribution else len(found), archive)
    if not found:
        raise RootError(f"apt knows no archive for {own_suite}: run `apt-get update`")
    return found[0]


@contextmanager
def _lock(path: Path, what: str) -> Iterator[None]:
    """Exclusive among builders; the kernel drops it if the holder dies."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for {what} ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(suite: str, packages: Sequence[str], archive: _Archive, target: Path) -> None:
    _ensure_mmdebstrap()
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    source = f"deb [signed-by={archive.keyring}] {archive.uri} {suite} {archive.components}"
    # A mount namespace of its own: whatever ends the build, its mounts end with it.
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--fork",
        "--kill-child",
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=Apt::Install-Recommends "false"',
        # releases out of support carry an expired Release file
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=Acquire::Check-Date "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale", "info")),
        suite,
        str(partial),
        source,
    ]
    started = time.monotonic()
    _say(f"building the private root for {suite} in {target.parent} (once, about half a minute)")
    try:
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            _run_with_progress(command, log)
        (partial / "etc/apt/sources.list").write_text("")  # the mirror is this machine's business
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _say(f"private root for {suite} ready after {time.monotonic() - started:.0f} s")


def _run_with_progress(command: Sequence[str], log: IO[str]) -> None:
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        while True:
            try:
                code = process.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                _say(f"  {time.monotonic() - started:3.0f} s  {_stage(log)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code:
        log.seek(0)
        raise RootError("mmdebstrap failed:\n" + "".join(log.readlines()[-20:]))


def _stage(log: IO[str]) -> str:
    """What mmdebstrap said last; it marks its own stages with `I:`."""
    with open(f"/proc/self/fd/{log.fileno()}", errors="replace") as again:
        stages = [line[3:].strip() for line in again if line.startswith("I: ")]
    return stages[-1] if stages else "starting"


def _ensure_mmdebstrap() -> None:
    if shutil.which("mmdebstrap"):
        return
    _say("installing mmdebstrap")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", "mmdebstrap"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RootError("cannot install mmdebstrap:\n" + done.stdout[-2000:])


def _say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [host_release()[1]]:
        print(ensure_root(wanted))
