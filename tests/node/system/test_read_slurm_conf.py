# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm_adopt.system.slurm.accounts import uid_of_user
from slurm_adopt.system.slurm.conf import ConfFault, FileState, SlurmConf, check_not_own, is_current, read_slurm_conf

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def read(path: Path) -> SlurmConf:
    return read_slurm_conf((str(path),))


def fault(path: Path) -> str:
    with pytest.raises(ConfFault) as caught:
        read(path)
    return caught.value.reason


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "slurm.conf"
    path.write_text("ClusterName=Lab\nSlurmUser=root\n")
    path.chmod(0o644)
    return path


@root_only
def test_slurm_conf__defaults(conf: Path) -> None:
    found = read(conf)
    assert found.path == str(conf)
    assert found.cluster_name == "lab"
    assert (found.spool_dir, found.slurmd_port) == ("/var/spool/slurmd", 6818)
    assert (found.slurm_user, found.slurmd_user, found.step_owners) == ("root", "root", (0,))
    assert (found.auth_type, found.hash_plugin, found.tls_type) == ("auth/munge", "hash/k12", "tls/none")
    assert (found.message_timeout_s, found.tcp_timeout_s) == (10, 2)
    assert found.problems == ()
    assert not found.has_nodes()


@root_only
def test_slurm_conf__values_across_includes_in_order(conf: Path) -> None:
    conf.write_text(
        'ClusterName=Lab\nSlurmdPort=7000\nInclude %c/more.conf\nPrologFlags="Contain, X11"\nAuthType=slurm\n'
        "SlurmdUser=1\nMessageTimeout=x\n"
    )
    (conf.parent / "lab").mkdir()
    (conf.parent / "lab" / "more.conf").write_text("SlurmdPort=7001-7003\nInclude nodes.conf\nOdd line\n")
    (conf.parent / "nodes.conf").write_text("NodeName=n1\nPROLOGFLAGS=Alloc\n")
    found = read(conf)
    assert found.slurmd_port == 7001
    assert found.prolog_flags == ("contain", "x11")
    assert found.auth_type == "auth/slurm"
    assert found.step_owners == (0, 1)
    assert found.has_nodes()
    assert [Path(file.path).name for file in found.files] == ["slurm.conf", "more.conf", "nodes.conf"]
    assert [problem.split(" ")[0] for problem in found.problems] == [
        f"{conf.parent}/lab/more.conf:3:",
        "messagetimeout:",
    ]


def test_slurm_conf__the_first_that_exists_counts(conf: Path) -> None:
    missing = str(conf.parent / "no" / "slurm.conf")
    through_a_file = str(conf / "slurm.conf")
    assert read_slurm_conf((missing, through_a_file, str(conf))).path == str(conf)
    assert fault(conf.parent / "none") == "slurm-conf-missing"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Include missing.conf\n", "slurm-conf-missing"),
        ("Include .\n", "slurm-conf-unreadable"),
        ("Include slurm.conf\n", "slurm-conf-malformed"),
        ("Include nodes-%c.conf\nClusterName=x\n", "slurm-conf-malformed"),
        ("SlurmdSpoolDir\n", "slurm-conf-malformed"),
        ("SlurmdSpoolDir=spool\n", "slurm-conf-malformed"),
        ("SlurmdPort=0\n", "slurm-conf-malformed"),
        ("\0", "slurm-conf-malformed"),
    ],
)
def test_slurm_conf__faults(conf: Path, text: str, reason: str) -> None:
    conf.write_text(text)
    assert fault(conf) == reason


def test_slurm_conf__a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slurm.conf")
    assert fault(tmp_path / "slurm.conf") == "slurm-conf-unreadable"


def test_slurm_conf__too_large(conf: Path) -> None:
    with conf.open("r+b") as file:
        file.truncate((16 << 20) + 1)
    assert fault(conf) == "slurm-conf-malformed"


@root_only
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(
    ("owner", "group", "mode", "reason"),
    [
        (0, 0, 0o644, ""),
        (0, 0, 0o664, ""),
        (0, 12345, 0o664, ""),
        (0, 0, 0o646, "slurm-conf-untrusted"),
        (7, 7, 0o644, ""),
        (7, 7, 0o646, "slurm-conf-untrusted"),
        (12345, 0, 0o644, "slurm-conf-untrusted"),
    ],
)
def test_slurm_conf__who_may_write_it(
    conf: Path, include: bool, owner: int, group: int, mode: int, reason: str
) -> None:
    target = conf.parent / "part.conf" if include else conf
    conf.write_text("SlurmUser=7\nInclude part.conf\n")
    (conf.parent / "part.conf").write_text("ClusterName=x\n")
    os.chown(target, owner, group)
    target.chmod(mode)
    if reason:
        assert fault(conf) == reason
        return
    found = read(conf)
    assert {file.owner for file in found.files} == {0, owner}
    assert bool(found.problems) == (group == 12345 or (group == 7 and mode & 0o20 != 0))


@root_only
def test_slurm_conf__the_users_own_file_is_not_believed_because_he_calls_root_slurm_user(conf: Path) -> None:
    os.chown(conf, 12345, 0)
    assert fault(conf) == "slurm-conf-untrusted"


@root_only
def test_slurm_conf__nobody_is_judged_by_his_own_file(conf: Path) -> None:
    part = conf.parent / "part.conf"
    part.write_text("")
    conf.write_text("SlurmUser=12345\nInclude part.conf\n")
    os.chown(part, 12345, 0)
    found = read(conf)
    check_not_own(found, 1001)
    check_not_own(found, 0)
    with pytest.raises(ConfFault, match="belongs to uid 12345") as caught:
        check_not_own(found, 12345)
    assert caught.value.reason == "slurm-conf-untrusted"


def test_slurm_conf__notices_a_change(conf: Path) -> None:
    places = (str(conf.parent / "earlier.conf"), str(conf))
    (conf.parent / "part.conf").write_text("")
    conf.write_text("Include part.conf\n")
    found = read_slurm_conf(places)
    assert is_current(found, places)
    assert isinstance(found.files[1], FileState)
    (conf.parent / "part.conf").chmod(0o600)
    assert not is_current(found, places)
    found = read_slurm_conf(places)
    assert is_current(found, places)
    Path(places[0]).write_text("")
    assert not is_current(found, places)
    Path(places[0]).unlink()
    (conf.parent / "part.conf").unlink()
    assert not is_current(found, places)


def test_accounts__uids() -> None:
    assert uid_of_user("root") == 0
    assert uid_of_user("0") == 0
    assert uid_of_user("daemon") == 1
    assert uid_of_user("64030") == 64030
    for nobody in ("", "no-such-user", "4294967295", "a:b", "x\ny", "-1", "٣", "99999999999", "x\0y", "\udcff"):
        assert uid_of_user(nobody) is None
