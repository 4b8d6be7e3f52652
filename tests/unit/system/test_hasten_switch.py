# SPDX-License-Identifier: Apache-2.0
"""Hastened moves: what was there before is there afterwards, whoever else hastens and whoever is killed."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_adopt.record import replace
from slurm_adopt.system.kernel.hasten import LONGEST_NS, OURS, Haste, Places, find_obstacle, hastened, look, put_right

SOURCE = Path(__file__).parents[3] / "src"
CGROUP2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,{}relatime 0 0\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A kernel that waits, and that nobody has told anything."""
    files = {
        "switch": "0\n",
        "normal": "0\n",
        "features": "nsdelegate\nfavordynmods\nmemory_localevents\n",
        "mounts": "proc /proc proc rw 0 0\n" + CGROUP2.format(""),
        "command_line": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run").mkdir(mode=0o755)
    return Places(**{name: str(tmp_path / name) for name in files}, lock=str(tmp_path / "run/hasten"))


def value(places: Places) -> str:
    return str(int(Path(places.switch).read_text()))


def in_child(work: Callable[[], None]) -> int:
    """A child that does this, and what its end is waited for with: 0 if all went well."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    CHILDREN.add(pid)
    return pid


CHILDREN: set[int] = set()


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    yield
    for pid in list(CHILDREN):
        os.kill(pid, signal.SIGKILL)
        wait(pid)


def wait(pid: int) -> int:
    CHILDREN.discard(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_hasten__only_while_it_is_held(places: Places) -> None:
    haste = Haste(places)
    assert haste.begin("auto")
    assert (value(places), look(places)) == (str(OURS), "moving")
    haste.end()
    assert (value(places), look(places)) == ("0", "off")
    assert os.stat(places.lock).st_mode & 0o777 == 0o600


def test_hasten__the_last_of_several_logins_puts_back(places: Places) -> None:
    haste = Haste(places)
    assert [haste.begin("auto") for _ in range(3)] == [True] * 3
    for _ in range(2):
        haste.end()
        assert value(places) == str(OURS)
    haste.end()
    assert value(places) == "0"


def test_hasten__the_last_of_several_processes_puts_back(places: Places) -> None:
    service, helper = Haste(places), Haste(places)  # two open files, as two processes have
    assert service.begin("auto")
    assert helper.begin("yes")
    service.end()
    assert value(places) == str(OURS)
    helper.end()
    assert value(places) == "0"


def test_hasten__many_processes_at_once(places: Places) -> None:
    """Whoever hastens finds it so until the end, whatever the others do; in the end nothing is left."""

    def work() -> None:
        chance = random.Random(os.getpid())
        haste = Haste(places)
        for _ in range(300):
            if haste.begin("auto"):
                assert value(places) == str(OURS)
                time.sleep(chance.choice((0, 0, 0.0002)))
                assert value(places) == str(OURS)
                haste.end()

    children = [in_child(work) for _ in range(8)]
    assert [wait(pid) for pid in children] == [0] * 8
    assert (value(places), look(places)) == ("0", "off")


def test_hasten__is_wanted_and_no_exception_leaves_it(places: Places) -> None:
    haste = Haste(places)
    with hastened("no", haste) as held:
        assert (held.until_ns, value(places)) == (0, "0")
    with pytest.raises(KeyError), hastened("auto", haste) as held:  # noqa: PT012
        assert 0 < held.until_ns - time.monotonic_ns() <= LONGEST_NS
        assert value(places) == str(OURS)
        raise KeyError
    assert value(places) == "0"


@pytest.mark.parametrize("before", ["1", "2", "-1"])
def test_hasten__the_administrators_value_stays(places: Places, before: str) -> None:
    Path(places.switch).write_text(f"{before}\n")
    assert not Haste(places).begin("yes")
    assert not put_right(places)
    assert (value(places), look(places)) == (before, "foreign")


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_hasten__what_the_administrator_sets_meanwhile_stays(places: Places, wanted: str) -> None:
    haste = Haste(places)
    assert haste.begin("auto")
    Path(places.switch).write_text(f"{wanted}\n")
    haste.end()
    assert value(places) == wanted


# Killed in between -----------------------------------------------------------------------------------


def leave(places: Places) -> None:
    """A login hastens, and is killed before it can put back."""

    def work() -> None:
        assert Haste(places).begin("auto")
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(in_child(work)) == -signal.SIGKILL
    assert (value(places), look(places)) == (str(OURS), "left")


def test_hasten__the_next_login_puts_right_what_was_left(places: Places) -> None:
    leave(places)
    haste = Haste(places)
    assert haste.begin("auto")
    assert look(places) == "moving"
    haste.end()
    assert (value(places), look(places)) == ("0", "off")


def test_hasten__the_service_puts_right_what_was_left(places: Places) -> None:
    leave(places)
    assert put_right(places)
    assert value(places) == "0"
    assert not put_right(places)


def test_hasten__the_service_leaves_alone_what_is_in_use(places: Places) -> None:
    haste = Haste(places)
    assert haste.begin("auto")
    assert not put_right(places)
    assert value(places) == str(OURS)
    haste.end()
    assert value(places) == "0"


def test_hasten__after_a_reboot_of_run_alone(places: Places) -> None:
    """A container that starts anew has an empty /run, and the kernel of before."""
    leave(places)
    os.unlink(places.lock)
    os.rmdir(os.path.dirname(places.lock))
    assert look(places) == "left"
    assert put_right(places)
    assert value(places) == "0"


def test_hasten__somebody_is_killed_while_others_are_at_it(places: Places) -> None:
    haste = Haste(places)
    assert haste.begin("auto")
    read, write = os.pipe()

    def work() -> None:
        assert Haste(places).begin("auto")
        os.write(write, b"+")
        signal.pause()

    pid = in_child(work)
    assert os.read(read, 1) == b"+"
    haste.end()
    assert value(places) == str(OURS)  # the other one is the last
    os.kill(pid, signal.SIGKILL)
    assert wait(pid) == -signal.SIGKILL
    assert look(places) == "left"
    assert haste.begin("auto")
    haste.end()
    assert value(places) == "0"
    os.close(read)
    os.close(write)


def test_hasten__killed_at_any_moment(places: Places) -> None:
    def work() -> None:
        haste = Haste(places)
        while True:
            if haste.begin("auto"):
                haste.end()

    chance = random.Random(1)
    children = [in_child(work) for _ in range(4)]
    for _ in range(25):
        time.sleep(chance.uniform(0, 0.004))
        os.kill(children[0], signal.SIGKILL)
        assert wait(children.pop(0)) == -signal.SIGKILL
        children.append(in_child(work))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
    assert value(places) in ("0", str(OURS))
    put_right(places)
    assert (value(places), look(places)) == ("0", "off")


# What cannot be done ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "on\n"])
def test_hasten__a_kernel_that_says_no_number(places: Places, text: str) -> None:
    Path(places.switch).write_text(text)
    assert not Haste(places).begin("yes")
    assert (Path(places.switch).read_text(), look(places)) == (text, "unknown")


def test_hasten__a_write_that_fails(places: Places) -> None:
    """Before the move: it is not hastened. After it: the login goes on, and the next one puts right."""

    def no_writing() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def before() -> None:
        no_writing()
        assert not Haste(places).begin("auto")

    def after() -> None:
        haste = Haste(places)
        assert haste.begin("auto")
        no_writing()
        haste.end()

    assert wait(in_child(before)) == 0
    assert (value(places), look(places)) == ("0", "off")
    assert wait(in_child(after)) == 0
    assert (value(places), look(places)) == (str(OURS), "left")
    assert put_right(places)


@pytest.mark.parametrize("kind", ["directory", "link", "open to others", "busy"])
def test_hasten__without_a_lock_nothing_is_hastened(places: Places, kind: str, tmp_path: Path) -> None:
    lock, folder = Path(places.lock), Path(places.lock).parent
    if kind == "directory":
        lock.mkdir()
    elif kind == "link":
        lock.symlink_to(tmp_path / "elsewhere")
    elif kind == "open to others":
        folder.chmod(0o777)
    else:
        import fcntl

        held = lock.open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    assert not Haste(places).begin("auto")
    assert value(places) == "0"
    assert not (tmp_path / "elsewhere").exists()


def test_hasten__makes_its_folder_readable_whatever_the_umask(places: Places) -> None:
    os.rmdir(os.path.dirname(places.lock))
    mask = os.umask(0o077)
    try:
        haste = Haste(places)
        assert haste.begin("auto")
        haste.end()
    finally:
        os.umask(mask)
    assert os.stat(os.path.dirname(places.lock)).st_mode & 0o777 == 0o755


# Where it does not help ------------------------------------------------------------------------------

OBSTACLES = {
    "kernel-does-not-wait": {"features": "nsdelegate\nmemory_localevents\n"},
    "favordynmods": {"mounts": CGROUP2.format("favordynmods,")},
    "rcu-normal": {"normal": "1\n"},
    "isolated-processors": {"command_line": "quiet isolcpus=2-7 nohz_full=2-7\n"},
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_hasten__is_left_alone_where_it_does_not_help(places: Places, obstacle: str) -> None:
    for name, text in OBSTACLES[obstacle].items():
        Path(getattr(places, name)).write_text(text)
    assert find_obstacle("auto", places) == obstacle
    assert not Haste(places).begin("auto")
    assert value(places) == "0"
    assert not os.path.exists(places.lock)


def test_hasten__sites_with_isolated_processors_may_want_it(places: Places) -> None:
    Path(places.command_line).write_text("nohz_full=1-7\n")
    assert find_obstacle("yes", places) == ""
    haste = Haste(places)
    assert haste.begin("yes")
    assert not haste.begin("auto")
    haste.end()
    assert value(places) == "0"


@pytest.mark.parametrize("name", ["switch", "features"])
def test_hasten__is_left_alone_where_the_kernel_has_no_such_file(places: Places, name: str) -> None:
    os.unlink(getattr(places, name))
    assert find_obstacle("yes", places) == {"switch": "no-switch", "features": "kernel-does-not-wait"}[name]
    assert not Haste(places).begin("yes")


@pytest.mark.parametrize(
    "mounts",
    [
        "favordynmods /mnt fuse rw,user_id=1501 0 0\n",
        "tmpfs /favordynmods tmpfs rw 0 0\n",
        "x /mnt fuse.cgroup2 rw,favordynmods 0 0\n",
        "short\n",
    ],
)
def test_hasten__mounts_of_others_do_not_count(places: Places, mounts: str) -> None:
    """What a user mounts may have any name."""
    Path(places.mounts).write_text(mounts + CGROUP2.format(""))
    assert find_obstacle("auto", places) == ""


def test_hasten__cgroup_v1_counts_as_well(places: Places) -> None:
    Path(places.mounts).write_text("cgroup /sys/fs/cgroup/freezer cgroup rw,freezer,favordynmods 0 0\n")
    assert find_obstacle("auto", places) == "favordynmods"


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only file system is root's to mount")
def test_hasten__sys_may_be_read_only(places: Places) -> None:
    folder = Path(places.switch).parent
    code = (
        "from slurm_adopt.system.kernel.hasten import *\n"
        f"places = {replace(places)!r}\n"
        "print(find_obstacle('yes', places), Haste(places).begin('yes'), put_right(places), look(places))"
    )
    script = f'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, code],
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["no-switch", "False", "False", "off"], "")
    assert value(places) == "0"
