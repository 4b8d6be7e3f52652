# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt` alone, on a node with real logins; and `status --watch` on a terminal."""

from __future__ import annotations

from lab.machine import wait_for
from lab.node import Node
from lab.product import serving

ON_A_TERMINAL = ["script", "-qec"]


def shown(node: Node, **how: object) -> dict[str, str]:
    """The entries by name, each on one line."""
    found: dict[str, str] = {}
    name = ""
    for row in node.run(["slurm-adopt"], **how).stdout.splitlines()[1:]:  # type: ignore[arg-type]
        name = row[:12].strip() or name
        found[name] = f"{found.get(name, '')} {row[12:]}".strip()
    return found


def test_overview__the_node_in_a_few_lines(node: Node) -> None:
    said = shown(node)
    assert said["in force"].startswith("yes, for sshd, since 20")
    assert said["jobs"] == "0 here, 0 logins in them"
    assert said["last hour"] == "not known: the service has not run here"
    job = node.submit("alice")
    with serving(node) as service:
        assert node.ssh("alice").returncode == 0
        node.ssh("bob")
        line = "required pam_slurm_adopt.so profile=strict mode=oneshot"
        node.pam("sshd", account=[line], session=[line])
        node.ssh("bob")
        login = node.ssh_popen("alice", "echo in; sleep 1000")
        assert login.stdout is not None
        wait_for(lambda: "in\n" in iter(login.stdout.readline, ""), "the login")
        said = shown(node)
        assert said["decided by"].startswith("the service, which runs since 20")
        assert said["jobs"] == "1 here, 1 login in them"
        assert said["last hour"] == "4 logins: 2 let in, 2 refused (no-job 2)"
        assert "slurm-adopt explain USER" in said["next"]
        login.kill()
        login.communicate()
        node.run("pkill -TERM -f 'slurm-adopt serve'")
        service.wait()
    said = shown(node)
    assert said["last hour"] == "4 logins: 2 let in, 2 refused (no-job 2)", "the service has left its numbers"
    assert "idle" in said["decided by"]
    node.cancel(job)
    node.run("rm -rf /run/slurm-adopt")


def test_overview__says_what_is_not_in_force(node: Node) -> None:
    for more, begins in ((" enforce=no", "no: it looks on"), (" enforce=adopt", "users with a job are adopted")):
        line = f"required pam_slurm_adopt.so profile=strict{more}"
        node.pam("sshd", account=[line], session=[line])
        said = shown(node)
        assert said["in force"].startswith(begins)
        assert "--would-deny" in said["next"]
    node.pam("sshd", account=[], session=[])
    said = shown(node)
    assert said["in force"] == "no: no PAM line asks it"
    assert "slurm-adopt enable" in said["next"]


def test_overview__users_see_their_own_way(node: Node) -> None:
    assert set(shown(node, user="alice")) == {"in force", "next"}


def test_overview__colours_on_a_terminal_only(node: Node) -> None:
    assert "\x1b" not in node.run(["slurm-adopt"]).stdout
    terminal = {"TERM": "xterm", "COLUMNS": "80"}
    assert "\x1b[32myes" in node.run([*ON_A_TERMINAL, "slurm-adopt", "/dev/null"], env=terminal).stdout
    plain = node.run([*ON_A_TERMINAL, "slurm-adopt", "/dev/null"], env={**terminal, "NO_COLOR": "1"}).stdout
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_status__watch_shows_it_again(node: Node) -> None:
    said = node.run(
        [*ON_A_TERMINAL, "timeout -s INT 3 slurm-adopt status --watch 0.2", "/dev/null"],
        env={"TERM": "xterm"},
        check=False,
    ).stdout
    assert said.count("No ssh login.") >= 2
    assert "Traceback" not in said
