# SPDX-License-Identifier: Apache-2.0
"""Disk images for virtual machines: a private root, configured, in an ext4 file; made once, without a loop mount.

1. The private root is never written: it is the lower layer of an overlay in a mount namespace of its own.
2. An image is named after a hash of everything that went in; it lies in the cache, outside the checkout.
3. An image is only read afterwards: every boot throws its changes away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import vm_guest
from lab.namespaces import mount
from lab.root import RootError, cache_dir, ensure_root

RECIPE = 2
"""Raise it when the way of making an image changes, not only what is in vm_guest."""

_SIZE = 3 << 30


@dataclass(frozen=True)
class Image:
    """What a boot needs. `key` is the private key that root and every user of the guest accepts."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        return self.folder / "key"


def ensure_image(suite: str = "trixie", selinux: bool = False) -> Image:
    """The image of a guest, made if need be (40 s for the packages, 5 s for the image). Raises RootError."""
    extra = vm_guest.PACKAGES + (vm_guest.SELINUX_PACKAGES if selinux else ())
    root = ensure_root(suite, extra)
    content = [str(RECIPE), root.name, str(_SIZE), vm_guest.SETUP, repr(sorted(vm_guest.FILES.items()))]
    content += [vm_guest.SELINUX_SETUP] if selinux else []
    tag = hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]
    images = cache_dir() / "images"
    target = images / f"{suite}{'-selinux' if selinux else ''}-{tag}"
    images.mkdir(parents=True, exist_ok=True)
    with (images / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel drops it if the builder dies
        if not target.is_dir():
            _make(root, target, selinux)
    return Image(target)


def _make(root: Path, target: Path, selinux: bool) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # we hold the lock: its builder was killed
    partial.mkdir(mode=0o700)  # the key in it opens every guest
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--fork",
        "--kill-child",
        sys.executable,
        "-m",
        "lab.vm_image",
        str(root),
        str(partial),
        "selinux" if selinux else "",
    ]
    print(f"lab: making the image {target}", file=sys.stderr, flush=True)
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise RootError(f"cannot make the image:\n{done.stdout[-3000:]}")
    partial.rename(target)


def _fill(root: Path, folder: Path, selinux: bool) -> None:
    """In a mount namespace of its own; its mounts end with the process."""
    top = Path("/tmp")  # covered in here alone
    os.chdir(root)  # before /tmp is covered: the cache may lie there
    results = os.open(folder, os.O_PATH)
    mount("tmpfs", str(top), "tmpfs", data="mode=755")
    for name in ("upper", "work", "tree", "out"):
        (top / name).mkdir()
    (top / "upper").chmod(0o755)
    tree = top / "tree"
    # xino: without it files and directories seem to be on two devices, and setfiles stops at the first directory
    layers = f"lowerdir=.,upperdir={top}/upper,workdir={top}/work,xino=on"
    mount("overlay", str(tree), "overlay", data=layers)
    for name, text in vm_guest.FILES.items():
        file = tree / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    scripts = [vm_guest.SETUP] + ([vm_guest.SELINUX_SETUP] if selinux else [])
    for script in scripts:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        subprocess.run(["chroot", str(tree), "/bin/sh", "-c", script], check=True, env=environment)
    if selinux and "security.selinux" not in os.listxattr(tree / "usr/sbin/sshd"):
        raise RootError("setfiles has labelled nothing")
    out = Path(f"/proc/self/fd/{results}")
    shutil.copy(tree / "root/.ssh/id_ed25519", out / "key")
    shutil.copy(_only(tree, "boot/vmlinuz-*"), out / "vmlinuz")
    shutil.copy(_only(tree, "boot/initrd.img-*"), out / "initrd")
    disk = out / "disk.img"
    disk.touch()
    os.truncate(disk, _SIZE)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", str(tree), str(disk)],
        check=True,
        pass_fds=[results],
    )


def _only(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern))
    if len(found) != 1:
        raise RootError(f"{len(found)} files {pattern} in the tree instead of one")
    return found[0]


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _fill(Path(sys.argv[1]), Path(sys.argv[2]), bool(sys.argv[3]))
    else:
        print(ensure_image(selinux="selinux" in sys.argv[1:]).folder)
