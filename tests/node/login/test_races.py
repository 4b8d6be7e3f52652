# SPDX-License-Identifier: Apache-2.0
"""Logins while a job starts, ends, is requeued, or slurmd comes and goes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import LabError, wait_for
from lab.node import Node
from lab.product import serving, use_product, use_strict_lines

STRICT = "required pam_slurm_adopt.so profile=strict"
HOLD, FAIL = "/etc/lab/prolog-hold", "/etc/lab/prolog-fails"
PROLOG = f"#!/bin/sh\nwhile [ -e {HOLD} ]; do sleep 0.05; done\n[ ! -e {FAIL} ]\n"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param, slurm={"Prolog": "/etc/lab/prolog"}) as node:
        node.write("/etc/lab/prolog", PROLOG, 0o755)
        use_product(node)
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    use_strict_lines(machine)
    yield machine
    machine.run("rm -f /etc/lab/prolog-*")
    machine.cancel_all()
    assert not [process for process in machine.processes("alice") if "sshd" in process.command]


def in_prolog(node: Node, user: str) -> int:
    """A job of the user whose prolog is running, and goes on until `let_go`."""
    node.write(HOLD, "")
    job = node.sbatch(user)
    wait_for(lambda: any("/etc/lab/prolog" in p.command for p in node.processes(0)), "the prolog to run")
    return job


def let_go(node: Node) -> None:
    """Let the prolog end."""
    node.path(HOLD).unlink()


def wait_for_helper(node: Node) -> None:
    """Until a login waits for the prolog: from then on the helper lets go of the processor, again and again."""

    def naps() -> int:
        return sum(
            int(node.read(f"/proc/{p.pid}/status").rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
            for p in node.processes(0)
            if "slurm-adopt/helper" in p.command
        )

    wait_for(lambda: naps() > 20, "the helper to wait")


def log_of(node: Node, mark: int) -> dict[str, str]:
    """The fields of our first log line after `mark`."""
    lines = [line for line in node.log_since(mark) if "pam_slurm_adopt(" in line]
    assert lines, "nothing was logged"
    return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)


def test_races__login_during_a_short_prolog_waits_for_it(node: Node) -> None:
    job = in_prolog(node, "alice")
    use_strict_lines(node, f"{STRICT} prolog_wait=30 timeout=40")
    mark = node.log_mark()
    login = node.ssh_popen("alice", "echo $SLURM_JOB_ID; cat /proc/self/cgroup")
    wait_for_helper(node)
    let_go(node)
    out, err = login.communicate(timeout=40)
    assert out.startswith(f"{job}\n"), out + err
    assert f"job_{job}/step_extern" in out
    fields = log_of(node, mark)
    assert fields["reason"] == "adopted"
    assert int(fields["waited_ms"]) > 0


def test_races__the_resident_service_waits_too(node: Node) -> None:
    """One login waits, another user's is answered meanwhile."""
    use_strict_lines(node, f"{STRICT} mode=service prolog_wait=30 timeout=40")
    with serving(node):
        job = in_prolog(node, "alice")
        mark = node.log_mark()
        waiting = node.ssh_popen("alice", "echo $SLURM_JOB_ID")
        assert node.ssh("bob").returncode != 0
        assert [line for line in node.log_since(mark) if "user=bob" in line and "reason=no-job" in line]
        running = "slurm_adopt_logins_running 1\n"
        wait_for(lambda: running in node.run(["slurm-adopt", "metrics"]).stdout, "alice's login to wait")
        let_go(node)
        out, _ = waiting.communicate(timeout=40)
        assert f"{job}\n" in out
        fields = [line for line in node.log_since(mark) if "user=alice" in line and "phase=account" in line]
        assert "reason=adopted" in fields[0]
        assert "waited_ms=" in fields[0]


@pytest.mark.parametrize(("wait", "waited_ms"), [("", 1900), ("prolog_wait=0", None)])
def test_races__a_long_prolog_is_named_as_the_reason(node: Node, wait: str, waited_ms: int | None) -> None:
    in_prolog(node, "alice")
    use_strict_lines(node, f"{STRICT} {wait}")
    mark = node.log_mark()
    done = node.ssh("alice")
    assert done.returncode != 0
    assert "your job on this node is still starting (prolog)" in done.stderr
    fields = log_of(node, mark)
    assert fields["reason"] == "job-starting"
    if waited_ms is None:
        assert "waited_ms" not in fields
    else:
        assert int(fields["waited_ms"]) >= waited_ms


def test_races__the_wait_leaves_time_to_answer(node: Node) -> None:
    """`prolog_wait` beyond `timeout`: the user still gets the reason, not the module's time-out."""
    in_prolog(node, "alice")
    use_strict_lines(node, f"{STRICT} prolog_wait=300 timeout=2")
    mark = node.log_mark()
    assert "still starting" in node.ssh("alice").stderr
    fields = log_of(node, mark)
    assert fields["reason"] == "job-starting"


def test_races__nobody_else_waits_for_a_prolog(node: Node) -> None:
    """Not another user, and not one who dresses a process of his, or a set-uid one, as a prolog."""
    in_prolog(node, "alice")
    disguise = {"SLURM_SCRIPT_CONTEXT": "prolog_slurmd", "SLURM_JOB_UID": "1502", "SLURM_JOB_ID": "7"}
    with node.popen(["bash", "-c", "exec -a slurmd sleep 60"], user="bob", env=disguise) as plain:
        with node.popen(["su", "root"], user="bob", env=disguise, stdin=subprocess.PIPE) as set_uid:
            mark = node.log_mark()
            assert node.ssh("bob").returncode != 0
            fields = log_of(node, mark)
            set_uid.kill()
        plain.kill()
    assert fields["reason"] == "no-job"
    assert "waited_ms" not in fields


def test_races__a_prolog_that_fails_ends_the_wait(node: Node) -> None:
    in_prolog(node, "alice")
    try:
        mark = node.log_mark()
        use_strict_lines(node, f"{STRICT} prolog_wait=60 timeout=90")
        login = node.ssh_popen("alice")
        wait_for_helper(node)
        node.write(FAIL, "")
        let_go(node)
        login.communicate(timeout=80)
        fields = log_of(node, mark)
    finally:
        node.run("scancel -u alice; scontrol update nodename=lab state=resume", check=False)
        node.wait_idle()
    assert login.returncode != 0
    assert fields["reason"] == "no-job"
    assert int(fields["waited_ms"]) < 60_000


def test_races__jobs_that_end_during_logins_take_them_along(node: Node) -> None:
    """Whatever the moment: a login is refused, or it is in the job and ends with it."""
    for delay_ms in (0, 60, 150):
        job = node.submit("alice")
        mark = node.log_mark()
        clients = [node.ssh_popen("alice", "echo in; sleep 1000") for _ in range(4)]
        time.sleep(0.15 + delay_ms / 1000)
        node.cancel(job)
        for client in clients:
            client.communicate(timeout=20)
            assert client.returncode != 0
        wait_for(lambda: not node.processes("alice"), "every process of alice to be gone")
        reasons = {line.partition("reason=")[2].split()[0] for line in node.log_since(mark) if "reason=" in line}
        assert reasons <= {"adopted", "session-verified", "session-readopted", "job-ending", "no-job"}, reasons


def test_races__a_requeued_job_is_joined_again(node: Node) -> None:
    job = node.submit("alice", requeue=True)
    first = node.ssh_popen("alice", "echo in; sleep 1000")
    assert first.stdout is not None
    wait_for(lambda: "in\n" in iter(first.stdout.readline, ""), "the first login")
    node.run(["scontrol", "requeue", str(job)])
    first.communicate(timeout=20)
    assert first.returncode != 0
    wait_for(lambda: node.extern_socket(job) is None, "the first run to end")
    assert node.ssh("alice").returncode != 0

    def started_again() -> bool:
        if node.extern_socket(job) is None:  # Slurm puts a requeued job off for two minutes, once it has completed
            node.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=False)
        return node.extern_socket(job) is not None

    ended = time.time()
    # credentials count seconds: slurmd 20.11 takes one of the same second for the one it has revoked
    wait_for(lambda: time.time() > ended + 3, "the clock to be seconds further")
    wait_for(started_again, "the second run", 90, 5)
    done = node.ssh("alice", "cat /proc/self/cgroup")
    assert f"job_{job}/step_extern" in done.stdout


@pytest.mark.parametrize("how", ["killed", "paused", "restarted"])
def test_races__logins_do_not_need_slurmd(node: Node, how: str) -> None:
    job = node.submit("alice")
    if how == "killed":
        node.slurmd.kill()
    elif how == "paused":
        node.slurmd.pause()
    else:
        node.slurmd.restart()
    try:
        mark = node.log_mark()
        assert f"job_{job}/step_extern" in node.ssh("alice", "cat /proc/self/cgroup").stdout
        assert node.ssh("bob").returncode != 0
        denied = [line for line in node.log_since(mark) if "user=bob" in line]
        assert "reason=no-job" in denied[0]
        assert "waited_ms" not in denied[0]
    finally:
        if how == "killed":
            node.slurmd.start()
        elif how == "paused":
            node.slurmd.resume()
    wait_for(lambda: node.job_state(job) == "RUNNING", "the job to be known again")
    assert f"job_{job}/step_extern" in node.ssh("alice", "cat /proc/self/cgroup").stdout


def test_races__a_crashed_slurmstepd_grants_nothing(node: Node) -> None:
    """Its socket stays behind; there is nothing behind it that could hold a login."""
    job = node.submit("alice")
    extern = [p.pid for p in node.processes(0) if p.command.startswith(f"slurmstepd: [{job}.extern")]
    node.run(["kill", f"-{int(signal.SIGKILL)}", *map(str, extern)])
    assert node.extern_socket(job) is not None
    mark = node.log_mark()
    assert node.ssh("alice").returncode != 0
    assert log_of(node, mark)["reason"] == "no-job"
    with pytest.raises(LabError):
        wait_for(lambda: any("sshd" in p.command for p in node.processes("alice")), "nothing", 0.3)
    node.run(["scancel", "-u", "alice"])
    socket = node.extern_socket(job)
    if socket is not None:
        socket.unlink()
