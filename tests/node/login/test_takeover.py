# SPDX-License-Identifier: Apache-2.0
"""What a session takes over from its job: resource limits and variables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import WAITS, Node
from lab.product import use_product, use_strict_lines

STRICT = "required pam_slurm_adopt.so profile=strict"
#: What pam_limits gives to a login, and what to a job (its numbers are propagated from the submitting shell).
PAM_NOFILE, JOB_NOFILE = 5000, 777
LIMITS_CONF = f"alice - nofile {PAM_NOFILE}\nalice - memlock 64\nalice - core 0\n"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    # RLIMIT_RSS comes from the memory that the job was given: it must be a resource that is given
    settings = {"LaunchParameters": "ulimit_pam_adopt", "SelectTypeParameters": "CR_Core_Memory"}
    with Node(suite=request.param, slurm=settings) as node:
        use_product(node)
        node.write("/etc/security/limits.conf", LIMITS_CONF)
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    yield machine
    machine.run("rm -rf /run/slurm-adopt/jobs")
    machine.cancel_all()


def submit_with(node: Node, before: str, script: str = WAITS, options: str = "") -> int:
    """A job of alice, submitted from a shell that has run `before`."""
    command = f"{before}; sbatch --parsable --output=/dev/null {options} --wrap='{script}'"
    job = int(node.run(["bash", "-c", command], user="alice").stdout)
    wait_for(
        lambda: any(p.command.endswith(("slurm_script", "sleep 1000")) for p in node.processes("alice")),
        "the script to run",
        30,
    )
    return job


PRINT_LIMITS = "for i in n l c v s m; do echo limit $i $(ulimit -S$i) $(ulimit -H$i); done"


def limits_of_login(node: Node) -> dict[str, tuple[str, str]]:
    """Soft and hard limits of a login, by ulimit's letter."""
    return _limits(node.ssh("alice", PRINT_LIMITS).stdout)


def may_raise_limits(node: Node) -> bool:
    """CAP_SYS_RESOURCE is number 24."""
    status = node.read("/proc/1/status")
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


def _limits(said: str) -> dict[str, tuple[str, str]]:
    lines = [line.split() for line in said.splitlines() if line.startswith("limit ")]
    return {letter: (soft, hard) for _, letter, soft, hard in lines}


def test_takeover__limits_are_those_of_pam_limits_by_default(node: Node) -> None:
    submit_with(node, f"ulimit -n {JOB_NOFILE}")
    use_strict_lines(node)
    limits = limits_of_login(node)
    assert limits["n"] == (str(PAM_NOFILE), str(PAM_NOFILE))
    assert (limits["l"], limits["c"]) == (("64", "64"), ("0", "0"))


def test_takeover__rlimits_job_gives_the_jobs_limits(node: Node) -> None:
    """All of them, as the batch script has them: Slurm propagates the submitter's soft limits."""
    script = f"({PRINT_LIMITS}) > /tmp/limits; exec sleep 1000"
    submit_with(node, f"ulimit -n {JOB_NOFILE}; ulimit -c 4096; ulimit -v 9000000", script)
    use_strict_lines(node, f"{STRICT} rlimits=job")
    file = node.path("/tmp/limits")
    wait_for(lambda: file.exists() and "limit m" in file.read_text(), "the job's limits")
    job = _limits(file.read_text())
    limits = limits_of_login(node)
    assert (limits["n"][0], limits["v"]) == (str(JOB_NOFILE), job["v"])
    assert job["v"][0] == "9000000"
    if may_raise_limits(node):
        assert limits == job
    else:  # in a container without CAP_SYS_RESOURCE pam_limits' hard limits stay
        assert (limits["n"][1], limits["l"], limits["c"]) == (str(PAM_NOFILE), ("64", "64"), ("0", "0"))


def test_takeover__a_job_with_tiny_limits_still_has_a_session(node: Node) -> None:
    """Whatever the user has done to the job's limits, sshd carries the login to its end."""
    tiny = (
        "ulimit -t 2; ulimit -f 1; ulimit -d 900; ulimit -s 128; ulimit -u 1; ulimit -n 8; ulimit -v 20000; ulimit -c 0"
    )
    submit_with(node, "true", f"{tiny}; exec sleep 1000")
    wait_for(lambda: any(p.command == "sleep 1000" for p in node.processes("alice")), "the script's limits")
    use_strict_lines(node, f"{STRICT} rlimits=job")
    print_limits = "for i in t f d s u n v; do echo limit $i $(ulimit -S$i) $(ulimit -H$i); done"
    before = _limits(node.run(["su", "alice", "-s", "/bin/bash", "-c", print_limits]).stdout)
    limits = _limits(node.ssh("alice", print_limits).stdout)
    kib = {"d": 1 << 20, "s": 1 << 10, "v": 1 << 20}
    for letter in ("d", "s", "v"):
        assert limits[letter] == (str(kib[letter]),) * 2, letter
    assert limits["n"] == ("256", "256")
    for letter in ("t", "f", "u"):
        assert limits[letter] == before[letter], letter
    assert [node.ssh("alice", "echo in").stdout for _ in range(3)] == ["in\n"] * 3


def test_takeover__a_small_limit_keeps_no_login_out_of_wtmp(node: Node) -> None:
    """sshd, which records it, gets the job's limits."""
    records = 384 << 18  # whole ones; 96 MiB
    node.run(f"touch /var/log/wtmp; truncate -s {records} /var/log/wtmp")
    wtmp = node.path("/var/log/wtmp")
    submit_with(node, "ulimit -f 1")
    use_strict_lines(node)
    sizes = [wtmp.stat().st_size]
    for line in (STRICT, f"{STRICT} rlimits=job"):
        use_strict_lines(node, line)
        assert node.ssh("alice", "true", tty=True).returncode == 0
        sizes.append(wtmp.stat().st_size)
    node.run("truncate -s 0 /var/log/wtmp")
    # from Debian 13 on sshd records nothing there
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] >= 0


def test_takeover__a_login_does_not_count_as_the_job(node: Node) -> None:
    """A first login with more than the job has, from pam_limits, raises nothing for the second."""
    submit_with(node, f"ulimit -n {JOB_NOFILE}")
    use_strict_lines(node)
    first = node.ssh_popen("alice", "echo in; sleep 1000")
    try:
        assert first.stdout is not None
        wait_for(lambda: "in\n" in iter(first.stdout.readline, ""), "the first login")
        use_strict_lines(node, f"{STRICT} rlimits=job")
        assert limits_of_login(node)["n"][0] == str(JOB_NOFILE)
    finally:
        first.kill()
        first.communicate()


def test_takeover__a_job_without_steps_leaves_pam_limits(node: Node) -> None:
    node.allocate("alice")
    use_strict_lines(node, f"{STRICT} rlimits=job export_env=job")
    assert limits_of_login(node)["n"] == (str(PAM_NOFILE), str(PAM_NOFILE))


def test_takeover__ulimit_pam_adopt_sets_rss(node: Node) -> None:
    """Slurm's own RLIMIT_RSS for adopted processes, from 23.02 on; before, LaunchParameters does not know it."""
    node.submit("alice", mem="300")
    use_strict_lines(node)
    rss = node.ssh("alice", "ulimit -Hm").stdout.split()[-1]
    if node.slurm_release >= (23, 2):
        assert rss == str(300 * 1024)
    else:
        assert rss == "unlimited"


def variables_of_login(node: Node) -> dict[str, str]:
    lines = node.ssh("alice", "env").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


GPUS = "export CUDA_VISIBLE_DEVICES=0,3 LD_PRELOAD=/tmp/x.so MYSECRET=1"


def test_takeover__only_the_jobs_id_by_default(node: Node) -> None:
    job = submit_with(node, GPUS)
    use_strict_lines(node)
    variables = variables_of_login(node)
    assert {name: value for name, value in variables.items() if name.startswith("SLURM")} == {"SLURM_JOB_ID": str(job)}
    assert "CUDA_VISIBLE_DEVICES" not in variables


def test_takeover__export_env_job_gives_what_holds_for_the_job(node: Node) -> None:
    job = submit_with(node, GPUS, options="--job-name=blue")
    use_strict_lines(node, f"{STRICT} export_env=job")
    variables = variables_of_login(node)
    assert variables["SLURM_JOB_ID"] == str(job)
    assert variables["SLURM_JOB_NAME"] == "blue"
    assert variables["SLURM_JOB_NODELIST"] == "lab"
    assert variables["CUDA_VISIBLE_DEVICES"] == "0,3"
    task = {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_TASK_PID", "SLURM_GTIDS", "SLURM_JOBID"}
    assert not task & set(variables)
    assert not {"LD_PRELOAD", "MYSECRET"} & set(variables)


def test_takeover__export_env_none_leaves_no_trace_of_slurm(node: Node) -> None:
    """The account phase needs SLURM_JOB_ID to tell the session phase the job; the session does not see it."""
    submit_with(node, GPUS)
    use_strict_lines(node, f"{STRICT} export_env=none greeting=on")
    assert not [name for name in variables_of_login(node) if name.startswith("SLURM")]


def test_takeover__export_env_of_a_list(node: Node) -> None:
    submit_with(node, GPUS)
    use_strict_lines(node, f"{STRICT} export_env=CUDA_VISIBLE_DEVICES,SLURM_JOB_PARTITION")
    variables = variables_of_login(node)
    assert variables["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert variables["SLURM_JOB_PARTITION"] == "main"
    assert "SLURM_JOB_NAME" not in variables


def test_takeover__an_endless_environment_does_not_cost_the_login(node: Node) -> None:
    script = "for i in $(seq 60); do export SLURM_JOB_FILL$i=$(printf %0500d $i); done; exec sleep 1000"
    job = submit_with(node, "true", script)
    wait_for(lambda: any(p.command == "sleep 1000" for p in node.processes("alice")), "the script's variables")
    use_strict_lines(node, f"{STRICT} export_env=job")
    assert variables_of_login(node)["SLURM_JOB_ID"] == str(job)


@pytest.mark.parametrize(
    ("mode", "owner", "counts"), [("644", "root", True), ("664", "root:adm", False), ("644", "alice", False)]
)
def test_takeover__the_prologs_file_counts_if_it_is_roots(node: Node, mode: str, owner: str, counts: bool) -> None:
    job = submit_with(node, GPUS)
    file = f"/run/slurm-adopt/jobs/{job}.env"
    node.write(file, "CUDA_VISIBLE_DEVICES=7\nSLURM_JOB_GPUS=7\nLD_PRELOAD=/tmp/x.so\n")
    node.run(f"chmod {mode} {file}; chown {owner} {file}")
    use_strict_lines(node, f"{STRICT} export_env=job")
    variables = variables_of_login(node)
    assert variables["CUDA_VISIBLE_DEVICES"] == ("7" if counts else "0,3")
    assert "LD_PRELOAD" not in variables
