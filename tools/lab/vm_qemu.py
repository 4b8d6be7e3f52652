# SPDX-License-Identifier: Apache-2.0
"""QEMU, from a private root, with an image, until it can be reached.

1. QEMU is process 1 of a pid namespace and sees mounts of its own; the kernel ends it with the process that
   owns the virtual machine, however that one ends (PDEATHSIG), and the mounts with it.
2. KVM is used where a guest really boots under it; that is tried once per host kernel and remembered.
3. What a dead owner left in the cache's run directory is removed by the next boot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lab.machine import LabError
from lab.root import cache_dir, ensure_root
from lab.vm_guest import DRIVER_PORT
from lab.vm_image import Image

ATTEMPTS = 3
BOOT_TIMEOUT_S = 420
"""Half a minute on an idle machine. A guest that panics is noticed at once; this is for a host that is busy."""
KVM_TIMEOUT_S = 25
"""A guest under KVM is up in five seconds; one that hangs is not worth more."""
MEMORY_MIB = 2048
# cmpxchg16b: with it four of eight guests (Debian's 6.12) died of a double fault under QEMU 7.2's emulation
_CPU = {"kvm": "host,-arch-capabilities", "tcg": "max,-cx16"}

# The private root is only read: what QEMU needs is mounted over directories that every root has.
_ENTER = """\
set -e
root=$1 image=$2; shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$image" "$root/mnt"
mount -o remount,bind,ro "$root/mnt"
export TMPDIR=/tmp
exec chroot "$root" "$@"
"""


class BootError(LabError):
    """This attempt failed; the next may not."""


class Boot:
    """A running QEMU whose guest answers on the driver's ssh."""

    def __init__(self, image: Image, accelerator: str, kernel_args: Sequence[str], boots_again: bool) -> None:
        self.image = image
        self.accelerator = accelerator
        self._boots_again = boots_again
        self._booted_at = 0
        self.folder = _run_folder()
        self._console = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed by close()
        self._port = _free_port()
        self._master: subprocess.Popen[bytes] | None = None
        root = ensure_root(extra=["qemu-system-x86"])
        self._qemu = subprocess.Popen(
            [
                *_ends_with_us(),
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _ENTER,
                "enter",
                str(root),
                str(image.folder),
                *self._argv(kernel_args),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )

    def _argv(self, kernel_args: Sequence[str]) -> list[str]:
        append = " ".join(["root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 systemd.show_status=1", *kernel_args])
        return [
            "/usr/bin/qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            self.accelerator,
            "-cpu",
            _CPU[self.accelerator],
            "-smp",
            "2",
            "-m",
            str(MEMORY_MIB),
            "-display",
            "none",
            "-nodefaults",
            *([] if self._boots_again else ["-no-reboot"]),
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
            "-device",
            "virtio-rng-pci",
            "-kernel",
            "/mnt/vmlinuz",
            "-initrd",
            "/mnt/initrd",
            "-append",
            append,
            "-drive",
            "file=/mnt/disk.img,format=raw,if=virtio,snapshot=on,cache=unsafe",
            "-netdev",
            f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:{DRIVER_PORT}",
            "-device",
            "virtio-net-pci,netdev=n0,romfile=",
        ]

    def wait(self, timeout_s: float) -> None:
        """Until the guest answers. Raises BootError."""
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            text = self.console()
            trouble = re.search("Kernel panic|KVM internal error|Attempted to kill init", text)
            if self._qemu.poll() is not None or trouble or time.monotonic() > deadline:
                why = trouble.group() if trouble else "QEMU ended" if self._qemu.poll() is not None else "no answer"
                raise BootError(f"the virtual machine does not boot ({self.accelerator}): {why}\n{text[-3000:]}")
            time.sleep(0.3)

    def _answers(self) -> bool:
        if self._master is None or self._master.poll() is not None:
            shown = self.console()[self._booted_at :]
            if not re.search(r"Started .*sshd-driver|way in for the one|Reached target .*multi-user", shown):
                return False
            # one connection that all commands share: an exchange of keys takes a second under emulation
            self._master = subprocess.Popen(
                [*_ends_with_us(), *self._ssh("-M", "-N")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return (self.folder / "control").exists() and self._obeys()

    def _obeys(self) -> bool:
        try:
            done = subprocess.run(self.ssh_command("true"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
            return done.returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _ssh(self, *options: str) -> list[str]:
        settings = (
            "BatchMode=yes",
            "ConnectTimeout=10",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ServerAliveInterval=15",
            "IdentitiesOnly=yes",
            f"ControlPath={self.folder}/control",
        )
        return [
            "ssh",
            "-F",
            "none",
            "-p",
            str(self._port),
            "-i",
            str(self.image.key),
            *(part for setting in settings for part in ("-o", setting)),
            *options,
            "root@127.0.0.1",
        ]

    def ssh_command(self, command: str) -> list[str]:
        """The host's command line that has the guest's shell run `command` as root."""
        return [*self._ssh("-o", "ControlMaster=no"), "--", command]

    def console(self) -> str:
        with open(f"/proc/self/fd/{self._console.fileno()}", errors="replace") as again:
            return again.read()

    def lose_power(self) -> None:
        """The guest is off at once, with all that it has not written to its disk, and boots again."""
        assert self._boots_again, "boot(..., boots_again=True)"
        assert self._master is not None
        self._booted_at = len(self.console())
        with contextlib.suppress(subprocess.TimeoutExpired):  # nobody answers any more
            subprocess.run(self.ssh_command("echo b >/proc/sysrq-trigger"), stdin=subprocess.DEVNULL, timeout=5)
        self._master.kill()
        self._master.wait()
        (self.folder / "control").unlink(missing_ok=True)
        self.wait(BOOT_TIMEOUT_S)

    def close(self) -> None:
        for process in (self._qemu, self._master):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._console.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def boot(image: Image, kernel_args: Sequence[str] = (), boots_again: bool = False) -> Boot:
    """Boot, under KVM where that works, else emulated; emulation gets three attempts. Raises LabError.

    boots_again: a guest that resets itself does not end QEMU.
    """
    if os.geteuid() != 0:
        raise LabError("the virtual machine needs root (mount namespaces, its image)")
    verdict = _kvm_verdict_file()
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and not verdict.exists():
        try:
            return _attempt(image, "kvm", kernel_args, boots_again, KVM_TIMEOUT_S)
        except BootError as error:
            verdict.write_text(str(error))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(image, "tcg", kernel_args, boots_again, BOOT_TIMEOUT_S)
        except BootError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _attempt(image: Image, accelerator: str, kernel_args: Sequence[str], boots_again: bool, timeout_s: float) -> Boot:
    started = Boot(image, accelerator, kernel_args, boots_again)
    try:
        started.wait(timeout_s)
    except BaseException:
        started.close()
        raise
    return started


def _kvm_verdict_file() -> Path:
    """Exists if guests do not boot under this host's KVM; delete it to have that tried again."""
    host = hashlib.sha256(Path("/proc/version").read_bytes()).hexdigest()[:12]
    return cache_dir() / "images" / f".no-kvm-{host}"


def _ends_with_us() -> list[str]:
    return ["setpriv", "--pdeathsig=KILL"]


def _run_folder() -> Path:
    """A directory for one boot; those of owners that are gone are removed."""
    top = cache_dir() / "run"
    top.mkdir(parents=True, exist_ok=True)
    for old in top.glob("vm-*"):
        owner = old.name.split("-")[1]
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"vm-{os.getpid()}-", dir=top))


def _free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; if another takes it meanwhile, QEMU ends and is tried again."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
