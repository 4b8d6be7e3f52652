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


@root_only
@pytest.mark.parametrize(
    ("mode", "owner", "reason"),
    [
        (0o755, 0, ""),
        (0o775, 0, ""),
        (0o777, 0, "slurm-conf-untrusted"),
        (0o757, 7, "slurm-conf-untrusted"),
        (0o1777, 0, ""),
        (0o1775, 0, ""),
        (0o755, 7, ""),
        (0o755, 12345, "slurm-conf-untrusted"),
    ],
)
@pytest.mark.parametrize("way", ["folder", "above", "link", "link-of-a-folder", "include"])
def test_slurm_conf__who_may_write_to_the_folders_on_the_way(
    tmp_path: Path, way: str, mode: int, owner: int, reason: str
) -> None:
    """7 is SlurmUser here."""
    site = tmp_path / "site"
    (site / "etc").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    conf = site / "etc" / "slurm.conf"
    conf.write_text("SlurmUser=7\n")
    folder = site / "etc"
    if way == "above":
        folder = site
    elif way == "link":
        conf = tmp_path / "root" / "slurm.conf"
        conf.symlink_to("../site/etc/slurm.conf")
    elif way == "link-of-a-folder":
        (tmp_path / "root" / "slurm").symlink_to(site / "etc")
        conf = tmp_path / "root" / "slurm" / "slurm.conf"
    elif way == "include":
        conf = tmp_path / "root" / "slurm.conf"
        conf.write_text(f"SlurmUser=7\nInclude {site}/etc/slurm.conf\n")
    os.chown(folder, owner, 12345 if mode in (0o775, 0o1775) else 0)
    folder.chmod(mode)
    if reason:
        assert fault(conf) == reason
        return
    found = read(conf)
    assert (str(folder), owner) in found.folders or owner == 0
    loose = f"{folder}: group 12345 may write it: chmod g-w {folder}"
    assert (loose in found.problems) == (mode == 0o775)  # nobody replaces what is root's where the sticky bit is
    check_not_own(found, 1001)
    if owner:
        with pytest.raises(ConfFault) as caught:
            check_not_own(found, owner)
        assert caught.value.is_own


@root_only
def test_slurm_conf__in_a_sticky_folder_what_leads_on_must_be_roots(tmp_path: Path) -> None:
    """Whoever owns a link in /tmp may replace it."""
    (tmp_path / "slurm.conf").write_text("SlurmUser=7\n")
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    link = public / "slurm.conf"
    link.symlink_to("../slurm.conf")
    assert read(link).path == str(link)
    os.chown(link, 12345, 0, follow_symlinks=False)
    assert fault(link) == "slurm-conf-untrusted"
    os.chown(link, 7, 0, follow_symlinks=False)
    with pytest.raises(ConfFault):
        check_not_own(read(link), 7)


@root_only
def test_slurm_conf__what_everybody_may_have_taken_away_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    assert fault(tmp_path / "slurm" / "slurm.conf") == "slurm-conf-missing"
    (tmp_path / "slurm").chmod(0o777)
    assert fault(tmp_path / "slurm" / "slurm.conf") == "slurm-conf-untrusted"


def test_slurm_conf__links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert fault(tmp_path / "loop") == "slurm-conf-unreadable"
    (tmp_path / "slurm.conf").symlink_to("away")
    assert fault(tmp_path / "slurm.conf") == "slurm-conf-missing"


@root_only
@pytest.mark.parametrize(
    ("owner", "pattern", "look_up", "owners"),
    [
        (0, "", False, (0,)),
        (0, "", True, (0, 7)),
        (7, "", False, (0, 7)),
        (12345, "", False, (0, 7)),
        (0, "/%n", False, (0, 7)),
    ],
)
def test_slurm_conf__who_may_own_the_spool_directory(
    conf: Path, tmp_path: Path, owner: int, pattern: str, look_up: bool, owners: tuple[int, ...]
) -> None:
    """SlurmUser is looked up only where it matters: the directory service that knows the name may hang."""
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", owner, 0)
    conf.write_text(f"SlurmUser=7\nSlurmdSpoolDir={tmp_path}/spool{pattern}\n")
    found = read_slurm_conf((str(conf),), look_up)
    assert found.spool_owners == owners
    assert found.step_owners == (0,)


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
