# SPDX-License-Identifier: Apache-2.0
"""The virtual machine is what the tests believe it to be, and goes away with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab import vm_qemu
from lab.matrix_targets import VmTarget
from lab.vm_image import ensure_image

OWNER = """
import sys, time
from lab.vm_image import ensure_image
from lab.vm_qemu import Boot
started = Boot(ensure_image(), "tcg", [], False)
print(started.folder, flush=True)
time.sleep(600)
"""


def test_machine__systemd_and_pure_cgroup_v2(vm: VmTarget) -> None:
    assert vm.run("cat /proc/1/comm; stat -fc %T /sys/fs/cgroup").stdout.split() == ["systemd", "cgroup2fs"]
    # what other tests ran through systemd-run and then killed counts as failed, too
    failed = vm.run("systemctl --failed --no-legend --plain").stdout.splitlines()
    assert [line for line in failed if not line.startswith("run-")] == []
    assert "cgroup/v2" in vm.run("scontrol show config").stdout


def test_machine__files_there_and_back(vm: VmTarget, tmp_path: Path) -> None:
    (tmp_path / "tree/usr/share").mkdir(parents=True)
    (tmp_path / "tree/usr/share/lab-file").write_bytes(bytes(range(256)))
    mode = vm.run("stat -c %a / /usr").stdout
    vm.put(tmp_path / "tree", "/")
    vm.put(tmp_path / "tree/usr/share/lab-file", "/tmp/other name")
    vm.get("/tmp/other name", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bytes(range(256))
    assert vm.run(["cmp", "/tmp/other name", "/usr/share/lab-file"]).returncode == 0
    assert vm.run("stat -c %a / /usr").stdout == mode


def test_machine__goes_when_its_owner_is_killed() -> None:
    ensure_image()
    environment = {**os.environ, "PYTHONPATH": str(Path(vm_qemu.__file__).parents[1])}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout as said:
        folder = Path(said.readline().strip())
    assert _qemus_below(owner.pid)
    family = _qemus_below(owner.pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
    next_boot = vm_qemu._run_folder()
    try:
        assert not folder.exists()
    finally:
        next_boot.rmdir()


def _qemus_below(owner: int) -> list[int]:
    """The owner's descendants, once QEMU is among them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        parents = {}
        names = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    name, _, rest = (entry / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
                except OSError:
                    continue
                parents[int(entry.name)] = int(rest.split()[1])
                names[int(entry.name)] = name
        family = {owner}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        if any(names.get(pid, "").startswith("qemu") for pid in family):
            return sorted(family - {owner})
        time.sleep(0.1)
    raise AssertionError("QEMU did not start")
