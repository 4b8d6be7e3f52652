# SPDX-License-Identifier: Apache-2.0
"""PAM stacks and ways of logging in as sites have them: lines that stand there twenty times, limits, jump hosts, sftp."""

from __future__ import annotations

import pytest

from lab.node import Node

OURS = "required pam_slurm_adopt.so profile=strict"
SHOW = "cat /proc/self/cgroup"
JUMP, FORCED, SFTP_ONLY = 2203, 2204, 2205


def job_of(text: str) -> str:
    """The job that a /proc/PID/cgroup shows."""
    return text.partition("/job_")[2].partition("/")[0]


@pytest.mark.parametrize("count", [2, 20])
def test_field_stacks__our_line_again_and_again(node: Node, count: int) -> None:
    """A script that adds the line at each start of a container. Each call says the same, and the login is in one job."""
    node.submit_many("alice", 2)
    node.pam(account=[f"{OURS} timeout=30"] * count, session=[f"{OURS} timeout=30"] * count)
    mark = node.log_mark()
    done = node.ssh("alice", SHOW)
    told = [line for line in node.log_since(mark) if "verdict=" in line]
    assert len(told) == 2 * count
    assert {line.partition(" job=")[2].split()[0] for line in told} == {job_of(done.stdout)}
    assert all("verdict=allow" in line for line in told)
    refused = node.ssh("bob", SHOW)
    assert refused.returncode != 0
    assert refused.stderr.count("you have no active jobs on this node") >= 1


def test_field_stacks__pam_limits_after_ours_has_the_last_word(node: Node) -> None:
    """`rlimits=job` gives the job's limits; what stands behind it gives its own."""
    node.submit("alice", propagate="NOFILE")
    # afterwards: whoever submits has the limits of pam_limits as well
    node.write("/etc/security/limits.d/lab.conf", "alice soft nofile 777\n")
    last = f"{OURS} rlimits=job"
    try:
        node.pam(account=[OURS], session=["required pam_limits.so", last])
        behind = node.ssh("alice", "ulimit -n", check=True).stdout.strip()
        node.pam(account=[OURS], session=[last, "required pam_limits.so"])
        ahead = node.ssh("alice", "ulimit -n", check=True).stdout.strip()
    finally:
        node.path("/etc/security/limits.d/lab.conf").unlink()
    assert ahead == "777"
    assert behind != "777"


def test_field_stacks__jump_hosts_and_what_they_carry(node: Node) -> None:
    """The node sees the jump host's sshd; whose connection it carries is in the job, and refused as ever without one."""
    node.sshd("jump", JUMP, ["UsePAM no"])
    job = node.submit("alice")
    jump = [f"ProxyJump=alice@127.0.0.1:{JUMP}"]
    assert job_of(node.ssh("alice", SHOW, options=jump).stdout) == str(job)
    carried = [f"ProxyCommand=ssh -p {JUMP} -W %h:%p bob@127.0.0.1"]
    done = node.ssh("bob", SHOW, options=carried)
    assert done.returncode != 0
    assert "you have no active jobs on this node" in done.stderr
    # the jump host itself, with our lines: -W and -J through it are refused without a job
    through = node.ssh("bob", SHOW, options=["ProxyJump=bob@localhost:22"])
    assert through.returncode != 0
    assert "you have no active jobs on this node" in through.stderr


def test_field_stacks__forced_commands_and_sftp_alone(node: Node) -> None:
    """They run in the job; texts of ours do not get into what sftp and rsync read."""
    node.pam(account=[OURS], session=[f"{OURS} greeting=on"])
    node.sshd("forced", FORCED, [f"ForceCommand {SHOW}; echo asked $SSH_ORIGINAL_COMMAND"])
    sftp = ["Subsystem sftp internal-sftp", "Match User alice,bob", "ForceCommand internal-sftp"]
    node.write("/home/alice/file", "content\n")
    job = node.submit("alice")
    done = node.ssh("alice", "something else", port=FORCED)
    assert job_of(done.stdout) == str(job)
    assert "asked something else" in done.stdout
    # the sshd's own lines come after these; a Match block must be the last
    config = node.path("/etc/ssh/lab-sftp.conf")
    server = node.sshd("sftp", SFTP_ONLY, sftp[:1])
    config.write_text(config.read_text() + "\n".join(sftp[1:]) + "\n")
    server.stop()
    server.write_config = lambda: None  # type: ignore[method-assign]
    server.start()
    for user, there in (("alice", True), ("bob", False)):
        argv = f"echo 'get /home/alice/file /tmp/got-{user}' | sftp -b - -P {SFTP_ONLY} {user}@127.0.0.1"
        done = node.run(argv, check=False)
        assert (done.returncode == 0) == there, done
        assert node.path(f"/tmp/got-{user}").exists() == there
        assert ("you have no active jobs" in done.stderr) == (not there)
    assert node.ssh("alice", "true", port=SFTP_ONLY).stdout == "This service allows sftp connections only.\n"
