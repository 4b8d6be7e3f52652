# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt enable`, `confirm` and `disable` on a node with real logins: tried first, confirmed by a new login, and
taken back by themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

SSHD, KEPT = "/etc/pam.d/sshd", "/etc/pam.d/.sshd.before-slurm-adopt"
STATE, PENDING = "/var/lib/slurm-adopt", "/var/lib/slurm-adopt/pending"
ACCOUNT = "account  required  pam_slurm_adopt.so profile=strict\n"
SESSION = "session  required  pam_slurm_adopt.so profile=strict\n"


@pytest.fixture
def off(node: Node) -> Iterator[Node]:
    """A node whose sshd does not ask the module yet."""
    node.pam("sshd", account=[], session=[])
    yield node
    end_waiting(node)
    node.run(["rm", "-rf", STATE, KEPT])


def enable(node: Node, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = node.run(["slurm-adopt", "enable", "--yes", *words], check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def waiting(node: Node) -> list[int]:
    """The processes that wait to take a change back."""
    return [process.pid for process in node.processes(0) if "slurm-adopt enable" in process.command]


def end_waiting(node: Node) -> None:
    """As `kill -9`, or a session that is cleared away, would."""
    for number in waiting(node):
        node.run(["kill", "-KILL", str(number)], check=False)
    wait_for(lambda: not waiting(node), "nobody to wait")


def change_pending(node: Node, **fields: Any) -> None:
    path = node.path(PENDING)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_enable__is_confirmed_by_a_new_login_and_by_no_other(off: Node) -> None:
    before = off.read(SSHD)
    off.submit("alice")
    old = off.ssh_popen("root", "echo in; read line; slurm-adopt confirm; echo ended $?")
    assert old.stdout is not None
    wait_for(lambda: "in\n" in iter(old.stdout.readline, ""), "the old login")
    said = enable(off).stdout
    assert f"+{ACCOUNT}" in said
    assert "tried: root is let in" in said
    assert "tried: nobody, who has no job here, is refused (Permission denied)" in said
    assert "tried: alice, who has a job here, is let in" in said
    assert "slurm-adopt confirm" in said
    assert ACCOUNT in off.read(SSHD)
    lines = off.read(SSHD).splitlines(True)
    assert lines[lines.index("@include common-account\n") + 1] == ACCOUNT
    assert [line for line in lines if line.startswith("session")][-1] == SESSION
    assert lines[-1] == "@include common-password\n", "another kind of lines stays where it is"
    assert off.read(KEPT) == before
    assert "in force" in enable(off).stdout, "the second time it does nothing"
    outside = off.run(["slurm-adopt", "confirm"], check=False)
    assert "no ssh login" in outside.stderr
    assert "this login is older than the change" in old.communicate("now\n")[0]
    assert off.path(PENDING).exists()
    assert off.ssh("root", "slurm-adopt confirm").returncode == 0
    assert not off.path(PENDING).exists()
    assert off.ssh("alice").returncode == 0
    assert off.ssh("bob").returncode != 0
    assert "nothing to do" in enable(off).stdout
    wait_for(lambda: not waiting(off), "nobody to wait for a confirmed change")
    again = off.run(["slurm-adopt", "confirm"], check=False)
    assert "was confirmed" in again.stderr
    assert off.run(["slurm-adopt", "disable", "--yes"]).returncode == 0
    assert off.read(SSHD) == before
    assert "nothing to do" in off.run(["slurm-adopt", "disable", "--yes"]).stdout
    assert off.ssh("bob").returncode == 0


@pytest.mark.parametrize("suite", SUITES[1:], ids=suite_name)
def test_enable__which_login_is_new_on_other_releases(suite: str) -> None:
    """How many sshds a login has, and what they are called, differs; and libpam does."""
    with Node(suite) as node:
        use_product(node)
        node.pam("sshd", account=[], session=[])
        node.sshd("own", 2222, ["UsePAM no"])
        node.submit("alice")
        old = node.ssh_popen("root", "echo in; read line; slurm-adopt confirm")
        assert old.stdout is not None
        wait_for(lambda: "in\n" in iter(old.stdout.readline, ""), "the old login")
        said = enable(node).stdout
        assert "alice, who has a job here, is let in" in said
        assert "nobody, who has no job here, is refused" in said
        assert "this login is older than the change" in old.communicate("now\n")[0]
        assert "does not ask the PAM service sshd" in node.ssh("root", "slurm-adopt confirm", port=2222).stderr
        assert node.ssh("root", "slurm-adopt confirm").returncode == 0
        assert node.ssh("bob").returncode != 0


def test_enable__is_confirmed_by_a_user_who_becomes_root(off: Node) -> None:
    """As with sudo: below the user's shell, which is in a job, a process of root's."""
    off.submit("alice")
    off.run("cp /usr/bin/setpriv /usr/local/bin/become && chmod 4755 /usr/local/bin/become")
    become = "become --reuid=0 --regid=0 --clear-groups slurm-adopt confirm"
    enable(off)
    try:
        done = off.ssh("alice", become)
    finally:
        off.run(["rm", "/usr/local/bin/become"])
    assert done.stdout == f"{SSHD} stays as it is now.\n", done.stderr


def test_enable__is_not_confirmed_through_an_sshd_that_asks_something_else(off: Node) -> None:
    """An sshd of the administrators' own, say: that one can log in there tells nothing of this change."""
    off.sshd("own", 2222, ["UsePAM no"])
    enable(off)
    done = off.ssh("root", "slurm-adopt confirm", port=2222)
    assert "sshd /etc/ssh/lab-own.conf, which has made this login, does not ask the PAM service sshd" in done.stderr
    assert off.path(PENDING).exists()
    assert off.ssh("root", "slurm-adopt confirm").returncode == 0


def test_enable__is_taken_back_by_itself(off: Node) -> None:
    before = off.read(SSHD)
    mode = off.path(SSHD).stat().st_mode
    enable(off, "--minutes", "0.05")
    [waits] = waiting(off)
    held = off.run(f"readlink /proc/{waits}/fd/* /proc/{waits}/cwd; cut -d' ' -f7 /proc/{waits}/stat").stdout.split()
    assert held == ["/dev/null"] * 3 + ["/", "0"], "no descriptor, no folder and no terminal of ours"
    assert off.ssh("bob").returncode != 0
    wait_for(lambda: not off.path(PENDING).exists(), "the change to be taken back")
    assert off.read(SSHD) == before
    assert off.path(SSHD).stat().st_mode == mode
    assert off.ssh("bob").returncode == 0
    late = off.ssh("root", "slurm-adopt confirm")
    assert late.returncode == 1
    assert "was not confirmed, is taken back" in late.stderr
    assert any("is taken back" in line for line in off.log())
    wait_for(lambda: not waiting(off), "nobody to wait")


def test_enable__is_taken_back_though_its_terminal_is_gone(off: Node) -> None:
    """The session that it was given in is cut off, with everything in it that hears a hang-up."""
    before = off.read(SSHD)
    login = off.ssh_popen("root", "slurm-adopt enable --yes --minutes 0.1; echo done; sleep 1000", tty=True)
    assert login.stdout is not None
    wait_for(lambda: "done" in login.stdout.readline(), "the change")
    assert ACCOUNT in off.read(SSHD)
    login.kill()
    login.communicate()
    wait_for(lambda: off.read(SSHD) == before, "the change to be taken back")


def test_enable__says_so_if_systemd_cannot_be_told(off: Node) -> None:
    """There are signs of systemd, and it does not answer: the other ways back are enough."""
    off.run(["mkdir", "-p", "/run/systemd/system"])
    try:
        assert "systemd could not be told" in enable(off).stdout
        assert off.ssh("root", "slurm-adopt confirm").returncode == 0
    finally:
        off.run(["rm", "-r", "/run/systemd/system"])


@pytest.mark.parametrize("how", ["due", "boot"])
def test_enable__any_command_of_roots_takes_back_what_is_due(off: Node, how: str) -> None:
    """Nobody is there any more who waits for it; the time is over, or the machine was started again."""
    before = off.read(SSHD)
    enable(off)
    end_waiting(off)
    assert "slurm-adopt confirm" in off.run(["slurm-adopt"]).stdout
    off.run(["slurm-adopt", "status"])
    assert ACCOUNT in off.read(SSHD)
    change_pending(off, **({"due_s": 1.0} if how == "due" else {"boot": "another"}))
    done = off.run(["slurm-adopt", "status"])
    assert "is taken back" in done.stderr
    assert off.read(SSHD) == before
    assert off.run(["slurm-adopt", "status"]).stderr == ""


def test_enable__what_the_units_call(off: Node) -> None:
    before = off.read(SSHD)
    enable(off)
    end_waiting(off)
    restore = ["slurm-adopt", "enable", "--restore-pending"]
    assert off.run(restore).stderr == ""
    assert ACCOUNT in off.read(SSHD)
    change_pending(off, boot="another")
    assert "is taken back" in off.run(restore).stderr
    assert off.read(SSHD) == before
    assert off.run(restore).stderr == ""


def test_enable__what_somebody_has_edited_meanwhile_stays(off: Node) -> None:
    before = off.read(SSHD)
    enable(off)
    end_waiting(off)
    edited = off.read(SSHD) + "# mine\n"
    off.write(SSHD, edited)
    change_pending(off, due_s=1.0)
    done = off.run(["slurm-adopt", "status"])
    assert f"somebody has changed the file since: it stays, and the one of before is {KEPT}" in done.stderr
    assert (off.read(SSHD), off.read(KEPT)) == (edited, before)
    assert off.run(["slurm-adopt", "status"]).stderr == ""


def test_enable__a_stack_that_refuses_root_is_not_installed(off: Node) -> None:
    off.pam("sshd", account=["required pam_deny.so"])
    before = off.read(SSHD)
    done = enable(off, code=1)
    assert "root is refused" in done.stderr
    assert "as by the stack that is installed now" in done.stderr
    assert off.read(SSHD) == before
    assert not off.path(PENDING).exists()


def test_enable__a_stack_that_refuses_who_has_a_job_is_taken_back_at_once(off: Node) -> None:
    off.submit("alice")
    off.pam("sshd", account=["required pam_succeed_if.so quiet user != alice"])
    before = off.read(SSHD)
    done = enable(off, code=1)
    assert "alice, who has a job here, is refused" in done.stderr
    assert off.read(SSHD) == before
    assert not off.path(PENDING).exists()
    assert ACCOUNT in enable(off, "--force").stdout
    assert ACCOUNT in off.read(SSHD)


def test_enable__a_module_that_cannot_be_loaded_locks_nobody_out(off: Node) -> None:
    before = off.read(SSHD)
    [module] = off.run("ls /lib/*/security/pam_slurm_adopt.so").stdout.split()
    off.run(["cp", "-p", module, "/root/module"])
    off.write(module, "no module")
    try:
        done = enable(off, code=1)
    finally:
        off.run(["cp", "-p", "/root/module", module])
    assert "module-damaged" in done.stderr
    assert "root is refused" in done.stderr
    assert off.read(SSHD) == before


def test_enable__says_what_is_wrong_with_lines_that_are_there(off: Node) -> None:
    off.pam("sshd", account=["optional pam_slurm_adopt.so profile=strict"], session=["required pam_slurm_adopt.so"])
    before = off.read(SSHD)
    assert "pam-not-binding" in enable(off, code=1).stderr
    off.write("/etc/pam.d/unused", "account required pam_permit.so\n")
    try:
        said = enable(off, "--service", "unused", "--account-only", "--dry-run").stdout
    finally:
        off.path("/etc/pam.d/unused").unlink()
    assert "note: no sshd that runs asks the PAM service unused: sshd /etc/ssh/lab-main.conf asks sshd" in said
    assert off.read(SSHD) == before


def test_enable__looks_only(off: Node) -> None:
    before = off.read(SSHD)
    done = off.run(["slurm-adopt", "enable", "--dry-run", "--json", "--options", "enforce=no"])
    said = json.loads(done.stdout)
    assert "+account  required  pam_slurm_adopt.so enforce=no" in said["difference"]
    assert {trial["who"]: trial["let_in"] for trial in said["trials"]} == {"root": True, "without-job": True}
    assert (said["changed"], said["confirm_within_s"]) == (False, None)
    assert off.read(SSHD) == before
    assert off.run("ls -A /run/slurm-adopt | grep try", check=False).stdout == "", "no copy is left"
    asked = off.run(["slurm-adopt", "enable"], check=False)
    assert "add --yes" in asked.stderr
    assert off.read(SSHD) == before


def test_enable__for_scripts(off: Node) -> None:
    """At each start of a container, say: nobody confirms, and the second time nothing is done."""
    assert "is in force" in enable(off, "--minutes", "0").stdout
    assert not off.path(PENDING).exists()
    once = off.read(SSHD)
    assert json.loads(enable(off, "--minutes", "0", "--json").stdout)["changed"] is False
    assert off.read(SSHD) == once


def test_enable__other_options_later(off: Node) -> None:
    enable(off, "--minutes", "0", "--options", "profile=strict enforce=no")
    looking_on = off.read(SSHD)
    assert "nothing to do" in enable(off).stdout, "what stands there stays, unless other options are asked for"
    enable(off, "--options", "profile=strict")
    assert off.read(SSHD) == looking_on.replace(" enforce=no", "")
    assert off.run(["slurm-adopt", "disable", "--yes"]).returncode == 0
    assert "pam_slurm_adopt" not in off.read(SSHD), "what waits is taken back, and then the lines go"


def test_enable__refuses_files_that_others_keep_or_write(off: Node) -> None:
    off.run(["chmod", "o+w", SSHD])
    done = enable(off, code=1)
    assert f"everybody may write it\n  chmod go-w {SSHD}\n" in done.stderr
    off.run(["chmod", "o-w", SSHD])
    off.run(f"mv {SSHD} /etc/sshd-elsewhere && ln -s /etc/sshd-elsewhere {SSHD}")
    done = enable(off, code=1)
    assert "is a link to /etc/sshd-elsewhere" in done.stderr
    off.run(f"rm {SSHD} && mv /etc/sshd-elsewhere {SSHD}")
    assert "only root" in off.run(["slurm-adopt", "enable"], user="alice", check=False).stderr


def test_enable__on_a_full_disk(off: Node) -> None:
    """Nothing is begun that could not be taken back, and to take it back needs no room."""
    small = "mount -t tmpfs -o size=512k,mode=755 none"
    fill = "dd if=/dev/zero of={}/.fill bs=4k 2>/dev/null; true"
    off.run(f"mkdir -p {STATE} && {small} {STATE} && {fill.format(STATE)}")
    before = off.read(SSHD)
    try:
        done = enable(off, code=1)
        assert "No space left on device" in done.stderr
        assert off.read(SSHD) == before
    finally:
        off.run(["umount", STATE])
    off.run(f"cp -a /etc/pam.d /etc/pam.copy && {small} /etc/pam.d && cp -a /etc/pam.copy/. /etc/pam.d")
    try:
        enable(off)
        end_waiting(off)
        off.run(fill.format("/etc/pam.d"))
        change_pending(off, due_s=1.0)
        assert "is taken back" in off.run(["slurm-adopt", "status"]).stderr
        assert off.read(SSHD) == before
    finally:
        off.run("umount /etc/pam.d && rm -rf /etc/pam.copy")
