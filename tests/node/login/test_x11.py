# SPDX-License-Identifier: Apache-2.0
"""Slurm's X11 forwarding with a real X server: what a login gets from its job reaches the display of the submit side."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product, use_strict_lines
from lab.sshd import ssh_argv

#: No screen of this size exists anywhere else.
SCREEN = "641x417"
DISPLAY = ":5"
COOKIE = "0123456789abcdef0123456789abcdef"
FORWARDS, TRUSTED = 2230, ["ForwardX11=yes", "ForwardX11Trusted=yes"]
PACKAGES = ("xvfb", "xauth", "x11-utils")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, marks=pytest.mark.extra),
        *(pytest.param(suite, marks=pytest.mark.releases) for suite in ("bullseye", "trixie", "forky")),
    ],
    ids=lambda suite: suite or "host",
)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param, slurm={"PrologFlags": "contain,x11"}, packages=PACKAGES) as node:
        use_product(node)
        with display(node):
            yield node


@contextlib.contextmanager
def display(node: Node) -> Iterator[None]:
    """An X server that only who has the cookie may use; alice has it."""
    add = f"xauth add {DISPLAY} . {COOKIE}"
    node.run(f"touch /run/xserver; XAUTHORITY=/run/xserver {add}; mkdir -p -m 1777 /tmp/.X11-unix")
    node.run(add, user="alice")
    argv = ["Xvfb", DISPLAY, "-screen", "0", f"{SCREEN}x24", "-auth", "/run/xserver", "-nolisten", "tcp"]
    server = node.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: SCREEN in screen_of(node, f"DISPLAY={DISPLAY} xdpyinfo").stdout, "the X server")
        yield
    finally:
        server.kill()
        server.wait()


def screen_of(node: Node, command: str) -> subprocess.CompletedProcess[str]:
    return node.run(command, user="alice", check=False)


@contextlib.contextmanager
def job_with_x11(node: Node, command: str) -> Iterator[int]:
    """A job whose submit side has a display; salloc or srun end with their input."""
    argv = ["sh", "-c", f"DISPLAY={DISPLAY} exec {command}"]
    client = node.popen(argv, "alice", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert client.stdout is not None
        said = iter(client.stdout)
        line = next((line for line in said if line.startswith("job ")), "")
        assert line, "no job"
        yield int(line.split()[1])
    finally:
        client.communicate()
        node.cancel_all()


SAY = shlex.quote("echo job $SLURM_JOB_ID; exec cat")
COMMANDS = {"srun": f"srun --x11 sh -c {SAY}", "salloc": f"salloc --x11 sh -c {SAY}"}


@pytest.mark.parametrize("command", COMMANDS)
def test_x11__a_login_reaches_the_display_of_its_job(node: Node, command: str) -> None:
    with job_with_x11(node, COMMANDS[command]) as job:
        done = node.ssh("alice", 'echo "$DISPLAY"; echo "$XAUTHORITY"; xdpyinfo; cat /proc/self/cgroup', check=False)
        shown, authority, rest = done.stdout.split("\n", 2)
        assert re.fullmatch(r"localhost:\d+\.0", shown), done
        assert authority
        assert re.search(rf"name of display: +{shown}", rest), done
        assert f"{SCREEN} pixels" in rest, done
        assert f"/job_{job}/" in rest
        # it is the cookie in that file that opens the door, and the file is his
        closed = node.ssh("alice", "XAUTHORITY=/dev/null xdpyinfo")
        assert (closed.returncode != 0, SCREEN in closed.stdout) == (True, False), closed
        mode = node.run(["stat", "-c", "%U %a", authority]).stdout.split()
        assert mode == ["alice", "600"]
    gone = screen_of(node, f"DISPLAY={shown} XAUTHORITY={authority} xdpyinfo")
    assert (gone.returncode != 0, SCREEN in gone.stdout) == (True, False), gone


@pytest.mark.parametrize("options", ["", " disable_x11=1"], ids=["enabled", "disabled"])
def test_x11__with_the_clients_own_forwarding_too(node: Node, options: str) -> None:
    """`ssh -X` into a job with --x11: the job's display wins, as what PAM sets comes last; without it sshd's holds."""
    node.sshd("forwards", FORWARDS, ["X11Forwarding yes"])
    use_strict_lines(node, f"required pam_slurm_adopt.so profile=strict{options}")
    ask = 'echo "$DISPLAY $XAUTHORITY"; xdpyinfo'
    argv, env = ssh_argv("alice", ask, port=FORWARDS, options=TRUSTED)
    try:
        with job_with_x11(node, COMMANDS["srun"]):
            before = node.ssh("alice", ask).stdout
            client = {**env, "DISPLAY": DISPLAY, "XAUTHORITY": "/run/xserver"}
            done = node.run(argv, env=client, check=False)
            shown = done.stdout.split()[0]
            assert re.search(rf"name of display: +{shown}", done.stdout), done
            assert f"{SCREEN} pixels" in done.stdout, done
            job_has_one = before.split("\n")[0] != " "
            assert job_has_one == (not options)
            assert (shown == before.split()[0]) if job_has_one else shown == "localhost:10.0"
            # the cookie that sshd has added leaves the job's display as it was
            after = node.ssh("alice", ask).stdout
            assert (after.split("\n")[0], SCREEN in after) == (before.split("\n")[0], job_has_one)
    finally:
        use_strict_lines(node)


def test_x11__disable_x11(node: Node) -> None:
    use_strict_lines(node, "required pam_slurm_adopt.so profile=strict disable_x11=1")
    try:
        with job_with_x11(node, COMMANDS["srun"]):
            assert node.ssh("alice", 'echo "[$DISPLAY]"').stdout == "[]\n"
    finally:
        use_strict_lines(node)
