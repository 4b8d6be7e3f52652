# SPDX-License-Identifier: Apache-2.0
"""The Ansible role before a real ansible-lint, and played by a real ansible-core over ssh on nodes of the lab."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Cluster
from lab.environment import ensure_environment, site_packages
from lab.node import Node
from lab.product import installed

pytestmark = pytest.mark.extra

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "data/ansible"
ROLE = DATA / "roles/slurm_adopt"
PACKAGES = ("python3-apt", "sudo")
SSHD, PENDING = "/etc/pam.d/sshd", "/var/lib/slurm-adopt/pending"
ARCHIVE, PACKAGE = "/root/slurm-adopt.tar", "/root/slurm-adopt_0_all.deb"
FROM_ARCHIVE = {"slurm_adopt_archive": ARCHIVE}
RECAP = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)
#: What a play, logins and daemons leave on any node.
PASSING = (
    "/proc /sys /dev /run /tmp /var/log /var/spool /var/tmp /root /home /opt/ansible /var/lib/munge /var/cache/ldconfig"
)


# ansible-lint ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment() -> Path:
    return ensure_environment(HERE / "requirements.txt")


def lint(environment: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """ansible-lint, all of its rules, on what a folder has; it may ask nobody."""
    search = f"{environment}/bin:{os.environ['PATH']}"
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [environment / "bin/ansible-lint", "--offline", "--strict", "--profile", "production", "--nocolor", "."],
        cwd=folder,
        env={"PATH": search, "HOME": str(home), "LANG": "C.UTF-8", "ANSIBLE_ROLES_PATH": str(folder / "roles")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_role__ansible_lint_finds_nothing(environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ansible"
    shutil.copytree(DATA, folder)
    done = lint(environment, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    # and it does look
    main = folder / "roles/slurm_adopt/tasks/main.yml"
    main.write_text(main.read_text() + "\n- name: look\n  shell: ls\n")
    done = lint(environment, folder)
    assert done.returncode != 0
    assert "fqcn[action-core]" in done.stdout


# Plays ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recap:
    """What a play has done on a host."""

    ok: int
    changed: int
    unreachable: int
    failed: int


@dataclass(frozen=True)
class Played:
    """A run of ansible-playbook."""

    status: int
    text: str
    hosts: dict[str, Recap]

    @property
    def alone(self) -> Recap:
        """Of a play with one host."""
        (found,) = self.hosts.values()
        return found

    def report(self) -> dict[str, Any]:
        """What the role says at the end, of a play with one host."""
        _, _, rest = self.text.partition('"slurm_adopt_report": ')
        assert rest, self.text
        found: dict[str, Any]
        found, _ = json.JSONDecoder().raw_decode(rest)
        return found


def prepare(controller: Node, environment: Path, tree: Path) -> None:
    """Ansible, the role and what it installs, on the machine that runs Ansible."""
    controller.install(site_packages(environment), "/opt/ansible")
    controller.install(ROLE, "/etc/ansible/roles/slurm_adopt")
    subprocess.run(["tar", "-C", tree, "-cf", controller.path(ARCHIVE), "."], check=True)


def play(
    controller: Node, *words: str, hosts: str = "lab", user: str = "root", serial: str = "100%", **variables: object
) -> Played:
    """The role on hosts, as `user` (with sudo, if it is not root)."""
    text = [
        {
            "hosts": "all",
            "gather_facts": False,
            "become": user != "root",
            "serial": serial,
            "max_fail_percentage": 0,
            "roles": ["slurm_adopt"],
            "vars": variables,
        }
    ]
    controller.write("/root/play.yml", json.dumps(text))
    argv = ["python3", "-m", "ansible", "playbook", "-i", f"{hosts},", "-u", user, "/root/play.yml", *words]
    # a language without UTF-8 is none for Ansible; its temporary files and sockets are in the user's home
    env = {"PYTHONPATH": "/opt/ansible", "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", "ANSIBLE_NOCOLOR": "1"}
    done = controller.run(argv, env=env, check=False, timeout=300)
    hosts_seen = {match[1]: Recap(*map(int, match.groups()[1:])) for match in RECAP.finditer(done.stdout)}
    return Played(done.returncode, done.stdout + done.stderr, hosts_seen)


@pytest.fixture(scope="module")
def tree(request: pytest.FixtureRequest) -> Iterator[Path]:
    """What this checkout installs."""
    with installed(request.config.getoption("--suite")) as found:
        yield found


@pytest.fixture
def node(request: pytest.FixtureRequest, environment: Path, tree: Path) -> Iterator[Node]:
    """A node without slurm-adopt, which Ansible reaches by ssh from itself."""
    if os.geteuid() != 0:
        pytest.skip("an isolated node needs root")
    with Node(request.config.getoption("--suite"), packages=PACKAGES) as found:
        prepare(found, environment, tree)
        yield found


def files(node: Node) -> set[str]:
    """Every file of the node that stays, with its content's sum."""
    skipped = " -o ".join(f"-path {path}" for path in PASSING.split())
    listed = node.run(f"find / \\( {skipped} \\) -prune -o -type f -print0 | xargs -0 sha256sum").stdout
    return {line for line in listed.splitlines() if "__pycache__" not in line}


def pending_is_due(node: Node) -> None:
    """As if the time were over: nobody who waits for it is left, and the next command takes the change back."""
    for process in node.processes(0):
        if "slurm-adopt enable" in process.command:
            node.run(["kill", "-KILL", str(process.pid)], check=False)
    path = node.path(PENDING)
    path.write_text(json.dumps({**json.loads(path.read_text()), "due_s": 1.0}))
    node.run(["slurm-adopt", "status"])


def test_role__from_nothing_to_force_and_back(node: Node) -> None:
    before, stack = files(node), node.read(SSHD)
    job = node.submit("alice")
    looked = play(node, "--check", "--diff", **FROM_ARCHIVE)
    assert (looked.status, files(node) - before) == (0, set()), looked.text
    assert "not installed yet" in looked.text

    done = play(node, **FROM_ARCHIVE)
    assert done.status == 0, done.text
    report = done.report()
    assert (report["changed"], report["confirmed"], report["file"]) == (True, True, SSHD)
    assert {trial["who"]: trial["let_in"] for trial in report["trials"]} == {
        "root": True,
        "without-job": False,
        "with-job": True,
    }
    assert [finding["code"] for finding in report["findings"]] == []
    assert not node.path(PENDING).exists()
    assert node.ssh("alice", "echo $SLURM_JOB_ID").stdout == f"{job}\n"
    assert node.ssh("bob").returncode != 0

    stays = files(node)
    for words in ([], ["--check"]):
        again = play(node, *words, **FROM_ARCHIVE)
        assert (again.status, again.alone.changed, again.report()["changed"]) == (0, 0, False), again.text
    assert files(node) == stays

    looked = play(node, "--check", slurm_adopt_state="absent", **FROM_ARCHIVE)
    assert looked.status == 0, looked.text
    assert looked.alone.changed > 0
    assert files(node) == stays
    gone = play(node, slurm_adopt_state="absent", **FROM_ARCHIVE)
    assert gone.status == 0, gone.text
    assert node.read(SSHD) == stack
    left = files(node) ^ before
    assert {line.split()[1] for line in left} == {"/etc/pam.d/.sshd.before-slurm-adopt"}, "what disable keeps"
    assert play(node, slurm_adopt_state="absent", **FROM_ARCHIVE).alone.changed == 0
    assert node.ssh("bob").returncode == 0


def test_role__options_are_changed_and_stay(node: Node) -> None:
    looking_on = {"slurm_adopt_options": "profile=strict enforce=no", **FROM_ARCHIVE}
    assert play(node, **looking_on).status == 0
    assert node.read(SSHD).count("profile=strict enforce=no") == 2
    assert node.ssh("bob").returncode == 0
    asked = play(node, "--check", slurm_adopt_options="profile=strict", **FROM_ARCHIVE)
    assert (asked.status, asked.alone.changed) == (0, 1), asked.text
    assert "+account  required  pam_slurm_adopt.so profile=strict" in asked.text
    assert node.read(SSHD).count("profile=strict enforce=no") == 2
    assert play(node, slurm_adopt_options="profile=strict", **FROM_ARCHIVE).report()["confirmed"] is True
    assert "enforce=no" not in node.read(SSHD)
    assert node.ssh("bob").returncode != 0
    assert play(node, **FROM_ARCHIVE).alone.changed == 0, "without the option, what stands there stays"


def test_role__who_cannot_log_in_anew_confirms_nothing(node: Node) -> None:
    """bob runs Ansible, with sudo; he has no job on the node."""
    node.write("/etc/sudoers.d/bob", "bob ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    before = node.read(SSHD)
    done = play(node, user="bob", **FROM_ARCHIVE)
    assert done.status != 0
    assert "A new login was refused" in done.text
    assert done.alone.failed == 1, done.text
    assert node.read(SSHD) != before
    pending_is_due(node)
    assert node.read(SSHD) == before
    exempt = play(node, user="bob", slurm_adopt_options="profile=strict allow_users=bob", **FROM_ARCHIVE)
    assert exempt.report()["confirmed"] is True, exempt.text
    assert node.ssh("bob").returncode == 0
    assert node.ssh("carol").returncode != 0


def test_role__one_that_was_broken_off_is_confirmed_by_the_next(node: Node) -> None:
    node.run(["tar", "-xf", ARCHIVE, "-C", "/", "--keep-directory-symlink", "--no-overwrite-dir", "--no-same-owner"])
    node.run(["slurm-adopt", "enable", "--yes"])
    assert node.path(PENDING).exists()
    done = play(node, **FROM_ARCHIVE)
    assert done.report()["confirmed"] is True, done.text
    assert done.report()["changed"] is False
    assert not node.path(PENDING).exists()


def test_role__a_node_that_is_not_fit_is_left_alone(node: Node) -> None:
    conf = node.read("/etc/slurm/slurm.conf")
    for folder in ("/etc/slurm", "/etc/slurm-llnl"):
        node.write(f"{folder}/slurm.conf", conf.replace("PrologFlags=contain", "PrologFlags=Alloc"))
    before = node.read(SSHD)
    done = play(node, **FROM_ARCHIVE)
    assert (done.status != 0, done.alone.failed) == (True, 1), done.text
    assert "slurm-no-contain" in done.text, done.text
    assert node.read(SSHD) == before
    ignored = play(node, slurm_adopt_ignored_findings=["slurm-no-contain"], **FROM_ARCHIVE)
    assert [finding["code"] for finding in ignored.report()["findings"]] == ["slurm-no-contain"]
    assert ignored.report()["confirmed"] is True
    for folder in ("/etc/slurm", "/etc/slurm-llnl"):
        node.write(f"{folder}/slurm.conf", conf)
    node.run(["chmod", "666", "/usr/libexec/slurm-adopt/helper"])
    assert "helper-mode" in play(node, **FROM_ARCHIVE).text


def test_role__takes_nothing_away_that_a_line_needs(node: Node) -> None:
    assert play(node, **FROM_ARCHIVE).status == 0
    node.write("/etc/pam.d/other-sshd", "account required pam_slurm_adopt.so service=other-sshd\n")
    done = play(node, slurm_adopt_state="absent", **FROM_ARCHIVE)
    assert done.status != 0
    assert "/etc/pam.d/other-sshd:1:account required pam_slurm_adopt.so" in done.text
    assert node.path("/usr/bin/slurm-adopt").exists()


def test_role__a_new_archive_restarts_what_runs(node: Node) -> None:
    """On a node where systemd runs, as its folder says; the calls are written down."""
    node.write("/usr/bin/systemctl", '#!/bin/sh\necho "$*" >>/root/calls\n', 0o755)
    node.run("mkdir -p /run/systemd/system /etc/new && cd /etc/new && echo 2 >new")
    assert play(node, slurm_adopt_state="installed", **FROM_ARCHIVE).alone.failed == 0
    restart = "try-restart slurm-adopt.service slurm-adopt-users.service"
    assert node.read("/root/calls").count(restart) == 1
    assert "pam_slurm_adopt" not in node.read(SSHD)
    assert play(node, slurm_adopt_state="installed", **FROM_ARCHIVE).alone.changed == 0
    node.run(["tar", "-rf", ARCHIVE, "-C", "/", "./etc/new/new"])
    assert play(node, slurm_adopt_state="installed", **FROM_ARCHIVE).alone.changed > 0
    assert node.read("/root/calls").count(restart) == 2
    node.run("rm /var/cache/slurm-adopt.unpacked /etc/new/new")
    assert play(node, slurm_adopt_state="installed", **FROM_ARCHIVE).alone.changed > 0
    assert node.read("/etc/new/new") == "2\n", "what was broken off is done again"


def test_role__a_package_file(node: Node, tree: Path, tmp_path: Path) -> None:
    """The package's own life is tests/packages' business; here apt installs a file and takes it away."""
    package = os.environ.get("SLURM_ADOPT_PACKAGE")
    if package is None:
        staged = tmp_path / "staged"
        shutil.copytree(tree, staged, symlinks=True)
        (staged / "DEBIAN").mkdir()
        fields = ["Package: slurm-adopt", "Version: 0", "Architecture: all", "Maintainer: nobody <nobody@localhost>"]
        fields += ["Conflicts: libpam-slurm-adopt", "Replaces: libpam-slurm-adopt", "Description: staged"]
        (staged / "DEBIAN/control").write_text("\n".join(fields) + "\n")
        package = str(tmp_path / "slurm-adopt.deb")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", staged, package], check=True)
    node.install(package, PACKAGE)
    before = node.read(SSHD)
    from_file = {"slurm_adopt_package": PACKAGE}
    assert play(node, "--check", **from_file).status == 0
    assert not node.path("/usr/bin/slurm-adopt").exists()
    done = play(node, **from_file)
    assert done.status == 0, done.text
    assert done.report()["confirmed"] is True
    assert node.ssh("bob").returncode != 0
    assert play(node, **from_file).alone.changed == 0
    gone = play(node, slurm_adopt_state="absent", **from_file)
    assert gone.status == 0, gone.text
    assert node.read(SSHD) == before
    assert not node.path("/usr/bin/slurm-adopt").exists()
    assert play(node, slurm_adopt_state="absent", **from_file).alone.changed == 0
    both = play(node, **from_file, **FROM_ARCHIVE)
    assert "two ways to install the same thing" in both.text
    assert "one of: enabled, installed, absent" in play(node, slurm_adopt_state="gone", **from_file).text


def test_role__the_first_node_that_goes_wrong_ends_the_rollout(
    request: pytest.FixtureRequest, environment: Path, tree: Path
) -> None:
    with Cluster(request.config.getoption("--suite")) as cluster:
        first, second = cluster.nodes
        prepare(cluster.login, environment, tree)
        before = second.read(SSHD)
        first.run(["chmod", "777", "/var/spool/slurmd"])
        stopped = play(cluster.login, hosts="node1,node2", serial="1", **FROM_ARCHIVE)
        assert set(stopped.hosts) == {"node1"}, stopped.text
        assert "spool-dir-untrusted" in stopped.text
        assert second.read(SSHD) == before
        assert not second.path("/usr/bin/slurm-adopt").exists()
        first.run(["chmod", "755", "/var/spool/slurmd"])
        done = play(cluster.login, hosts="node1,node2", serial="1", **FROM_ARCHIVE)
        assert done.status == 0, done.text
        assert {name: (recap.failed, recap.unreachable) for name, recap in done.hosts.items()} == {
            "node1": (0, 0),
            "node2": (0, 0),
        }
        assert all("pam_slurm_adopt" in node.read(SSHD) for node in cluster.nodes)
