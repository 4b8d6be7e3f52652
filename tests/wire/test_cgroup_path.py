# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.cgroup_path import (
    MAX_LINE_LENGTH,
    MAX_LINES,
    CgroupLine,
    Membership,
    between_steps,
    decode_cgroups,
    decode_v1,
    decode_v2,
    extern_step,
    job_by_name,
    job_folder,
    lines_of_jobs,
    same_job,
    same_step,
)
from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.sluid import decode_sluid

SLUID = "s02BCDEFGHJKMN"

# Slurm 22.05.8 of Debian 12 (multiple-slurmd build), node vm, proctrack/cgroup, task/cgroup, jobacct_gather/cgroup
V1_STEPD = b"""\
12:freezer:/slurm_vm/uid_1001/job_1
11:memory:/slurm_vm/uid_1001/job_1/step_extern/task_0
10:devices:/
9:cpuset:/slurm_vm/uid_1001/job_1/step_extern
5:cpu,cpuacct:/slurm_vm/uid_1001/job_1/step_extern/task_0
1:name=systemd:/system.slice/slurmd.service
0::/system.slice/slurmd.service
"""
V1_ADOPTED = b"""\
12:freezer:/slurm_vm/uid_1001/job_1/step_extern
11:memory:/slurm_vm/uid_1001/job_1/step_extern/task_0
10:devices:/user.slice
9:cpuset:/slurm_vm/uid_1001/job_1/step_extern
5:cpu,cpuacct:/slurm_vm/uid_1001/job_1/step_extern/task_0
1:name=systemd:/user.slice/user-1001.slice/session-1.scope
0::/user.slice/user-1001.slice/session-1.scope
"""
# Slurm 20.11.4 of Debian 11, the folder of builds without the node's name
V1_PLAIN_STEPD = b"4:freezer:/slurm/uid_1001/job_7\n3:cpuset:/slurm/uid_1001/job_7/step_extern\n"
V1_PLAIN_ADOPTED = b"4:freezer:/slurm/uid_1001/job_7/step_extern\n3:cpuset:/slurm/uid_1001/job_7/step_extern\n"
# Slurm 24.11.5 of Debian 13 on systemd 257; 26.05 names the folder by SLUID
V2_STEPD = b"0::/system.slice/n1_slurmstepd.scope/job_5/step_extern/slurm\n"
V2_ADOPTED = b"0::/system.slice/n1_slurmstepd.scope/job_5/step_extern/user/task_0\n"
V2_SLUID_STEPD = f"0::/system.slice/slurmstepd.scope/{SLUID}/step_extern/slurm\n".encode()
V2_SLUID_ADOPTED = f"0::/system.slice/slurmstepd.scope/{SLUID}/step_extern/user/task_special\n".encode()


def test_cgroup_path__lines() -> None:
    text = b"0::/a:b\xff (deleted)\n12:cpu,cpuacct:/\n1:name=systemd:/x\n"
    assert decode_cgroups(text) == (
        CgroupLine(0, (), "/a:b\udcff (deleted)", True),
        CgroupLine(12, ("cpu", "cpuacct"), "/", False),
        CgroupLine(1, ("name=systemd",), "/x", False),
    )
    assert decode_cgroups(b"") == ()


def test_cgroup_path__the_largest() -> None:
    assert len(decode_cgroups(b"0::/\n" * MAX_LINES)) == MAX_LINES
    assert decode_cgroups(b"999999999::/\n")[0].hierarchy == 999999999
    path = "/" + "x" * (MAX_LINE_LENGTH - 4)
    assert decode_cgroups(f"0::{path}\n".encode())[0].path == path
    with pytest.raises(RemoteProtocolError):
        decode_cgroups(f"0::{path}x\n".encode())


def test_cgroup_path__lines_of_jobs() -> None:
    """As they are read, and only they."""
    found = decode_cgroups(lines_of_jobs(V1_ADOPTED + V2_ADOPTED))
    assert found == tuple(line for line in decode_cgroups(V1_ADOPTED + V2_ADOPTED) if "/job_" in line.path)
    assert len(found) == 5
    removed = b"0::/a b/slurmstepd.scope/job_5 (deleted)\n"
    assert lines_of_jobs(b"1:x:/\n" + removed) == removed
    assert lines_of_jobs(b"") == lines_of_jobs(b"0::/user.slice\n") == b""


@pytest.mark.parametrize(
    "text",
    [
        b"0::/",
        b"\n",
        b"0:/x\n",
        b"x::/\n",
        b"0::x\n",
        b"::/\n",
        b"-1::/\n",
        b"0::/\0\n",
        b"0::/\n" * 65,
        b"0::/" + b"x" * 5000 + b"\n",
        "٣::/\n".encode(),
        b"9999999999::/\n",
        b"99999999999::/\n",
    ],
)
def test_cgroup_path__malformed(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_cgroups(text)


@pytest.mark.parametrize(
    ("path", "job", "uid", "step", "prefix", "rest"),
    [
        ("/slurm/uid_1001/job_7", 7, 1001, None, "/", ""),
        ("/slurm_vm/uid_1001/job_1/step_extern", 1, 1001, "extern", "/", ""),
        ("/slurm_vm/uid_1001/job_1/step_extern/task_0", 1, 1001, "extern", "/", "/task_0"),
        ("/slurm/uid_0/job_1/step_batch/task_0", 1, 0, "batch", "/", "/task_0"),
        ("/slurm/uid_0/job_1/step_3+1", 1, 0, "3+1", "/", ""),
        ("/slurm/uid_0/job_1/step_x", 1, 0, None, "/", "/step_x"),
        ("/docker/abc/slurm/uid_5/job_6/step_0", 6, 5, "0", "/docker/abc/", ""),
        ("/slurm/uid_1/job_2/step_extern/slurm/uid_3/job_4", 2, 1, "extern", "/", "/slurm/uid_3/job_4"),
        ("/../slurm/uid_1/job_2", 2, 1, None, "/../", ""),
        ("/slurm/uid_0/job_4294967295/step_interactive", 4294967295, 0, "interactive", "/", ""),
    ],
)
def test_cgroup_path__v1(path: str, job: int, uid: int, step: str | None, prefix: str, rest: str) -> None:
    found = decode_v1(path)
    assert found is not None
    assert (found.version, found.job_id, found.sluid, found.uid) == (1, job, None, uid)
    assert (found.step, found.prefix, found.rest) == (step, prefix, rest)
    assert found.top + found.rest == path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/slurm",
        "/slurm/uid_1",
        "/slurm/uid_x/job_1",
        "/slurm/uid_01/job_1",
        "/slurm/uid_1/job_4294967296",
        "/slurmx/uid_1/job_1",
        "/slurm/uid_1/x/job_1",
        "/uid_1/job_1/step_extern",
        "/slurm/uid_-1/job_1",
        "/slurm/uid_/job_1",
        "slurm/uid_1/job_1/step_extern",
    ],
)
def test_cgroup_path__not_v1(path: str) -> None:
    assert decode_v1(path) is None


@pytest.mark.parametrize(
    ("path", "job", "sluid", "step", "prefix", "rest"),
    [
        (
            "/system.slice/slurmstepd.scope/job_5/step_extern/user/task_0",
            5,
            None,
            "extern",
            "/system.slice/",
            "/user/task_0",
        ),
        ("/system.slice/n1_slurmstepd.scope/job_5/step_extern/slurm", 5, None, "extern", "/system.slice/", "/slurm"),
        (
            f"/system.slice/slurmstepd.scope/{SLUID}/step_extern/user",
            None,
            decode_sluid(SLUID),
            "extern",
            "/system.slice/",
            "/user",
        ),
        ("/a/b/slurmstepd.scope/job_5", 5, None, None, "/a/b/", ""),
        (
            "/slurmstepd.scope/job_1/step_0/x/slurmstepd.scope/job_2/step_extern",
            1,
            None,
            "0",
            "/",
            "/x/slurmstepd.scope/job_2/step_extern",
        ),
    ],
)
def test_cgroup_path__v2(
    path: str, job: int | None, sluid: int | None, step: str | None, prefix: str, rest: str
) -> None:
    found = decode_v2(path)
    assert found is not None
    assert (found.version, found.job_id, found.sluid, found.uid) == (2, job, sluid, None)
    assert (found.step, found.prefix, found.rest) == (step, prefix, rest)
    assert found.top + found.rest == path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/system.slice/slurmstepd.scope",
        "/system.slice/slurmstepd.scope/system",
        "/slurmstepd.scopex/job_1/step_0",
        "/xslurmstepd.scope/job_1",
        "/slurmstepd.scope/job_01",
        "/slurmstepd.scope/s02BCDEFGHJKMU/step_extern",
        "/slurmstepd.scope/x/slurmstepd.scope/job_1",
        "slurmstepd.scope/job_1/step_extern",
    ],
)
def test_cgroup_path__not_v2(path: str) -> None:
    assert decode_v2(path) is None


PAIRS = [
    (V1_STEPD, V1_ADOPTED),
    (V1_PLAIN_STEPD, V1_PLAIN_ADOPTED),
    (V2_STEPD, V2_ADOPTED),
    (V2_SLUID_STEPD, V2_SLUID_ADOPTED),
]


@pytest.mark.parametrize(("stepd", "adopted"), PAIRS)
def test_same_step__adopted(stepd: bytes, adopted: bytes) -> None:
    proof = same_step(stepd, adopted)
    assert proof.inside
    assert "/step_extern" in proof.path
    assert proof.reason == "in the extern step"
    found = extern_step(decode_cgroups(adopted))
    assert found is not None
    assert found.step == "extern"


@pytest.mark.parametrize(("stepd", "adopted"), PAIRS)
def test_same_step__a_slurmstepd_is_not_in_its_own_step(stepd: bytes, adopted: bytes) -> None:
    assert not same_step(stepd, stepd).inside
    assert not same_step(adopted, b"").inside


@pytest.mark.parametrize(
    ("stepd", "adopted", "old", "new"),
    [
        (
            V1_STEPD,
            V1_ADOPTED,
            b"12:freezer:/slurm_vm/uid_1001/job_1/step_extern",
            b"12:freezer:/slurm_vm/uid_1001/job_1",
        ),
        (V1_STEPD, V1_ADOPTED, b"12:freezer:/slurm_vm/uid_1001/job_1/", b"12:freezer:/slurm_vm/uid_1001/job_11/"),
        (V1_STEPD, V1_ADOPTED, b"12:freezer:/slurm_vm/", b"12:freezer:/user/slurm_vm/"),
        (V1_STEPD, V1_ADOPTED, b"9:cpuset:/slurm_vm/uid_1001/job_1/step_extern", b"9:cpuset:/"),
        (V1_STEPD, V1_ADOPTED, b"/job_1/step_extern/task_0", b"/job_1/step_extern (deleted)"),
        (V1_STEPD, V1_ADOPTED, b"9:cpuset:/slurm_vm/uid_1001/job_1/step_extern\n", b""),
        (V1_STEPD, V1_ADOPTED, b"12:freezer", b"12:other"),
        (
            V1_STEPD,
            V1_ADOPTED,
            b"9:cpuset:/slurm_vm/uid_1001/job_1/step_extern",
            b"9:cpuset:/slurm_vm/uid_1001/job_1/step_externx",
        ),
        (
            V1_STEPD,
            V1_ADOPTED,
            b"9:cpuset:/slurm_vm/uid_1001/job_1/step_extern",
            b"9:cpuset:/slurm_vm/uid_1001/job_1/step_batch",
        ),
        (V2_STEPD, V2_ADOPTED, b"job_5", b"job_6"),
        (V2_STEPD, V2_ADOPTED, b"step_extern", b"step_0"),
        (V2_STEPD, V2_ADOPTED, b"/user/task_0", b"/slurm/task_0"),
        (V2_STEPD, V2_ADOPTED, b"/user/task_0", b"/user2/task_0"),
        (V2_STEPD, V2_ADOPTED, b"/user/task_0", b"/user/task_0 (deleted)"),
        (V2_STEPD, V2_ADOPTED, b"/system.slice", b"/user.slice/system.slice"),
        (V2_SLUID_STEPD, V2_SLUID_ADOPTED, SLUID.encode(), b"s12BCDEFGHJKMN"),
    ],
)
def test_same_step__elsewhere(stepd: bytes, adopted: bytes, old: bytes, new: bytes) -> None:
    assert old in adopted
    proof = same_step(stepd, adopted.replace(old, new))
    assert not proof.inside
    assert proof.reason


NOT_STEPD = "slurmstepd is not where the extern step's slurmstepd is"
ELSEWHERE = [
    (V1_STEPD, V1_ADOPTED.replace(b"5:cpu,cpuacct", b"5:cpu"), "the process has no cpu,cpuacct cgroup", "", True),
    (V2_STEPD, b"", "the process has no cgroup2 cgroup", "", True),
    (V2_STEPD, b"0::/x\n", "the process is not below {v2}/user in cgroup2", "/x", True),
    (V1_PLAIN_STEPD, b"4:freezer:/x\n", "the process is not below {v1} in freezer", "/x", True),
    (V1_PLAIN_ADOPTED.replace(b"extern", b"batch"), b"", NOT_STEPD, "/slurm/uid_1001/job_7/step_batch", True),
    (V2_ADOPTED, b"", NOT_STEPD, "{v2}/user/task_0", True),
    (b"0::/user.slice\n", b"", "slurmstepd is in no cgroup of a job", "", False),
    (
        V1_PLAIN_STEPD.replace(b"job_7/", b"job_8/"),
        V1_PLAIN_ADOPTED.replace(b"cpuset:/slurm/uid_1001/job_7/", b"cpuset:/slurm/uid_1001/job_8/"),
        "slurmstepd's cgroups name more than one job",
        "{v1}",
        True,
    ),
    (V2_STEPD[:-1], V2_ADOPTED, "the last line has no end", "", True),
]


@pytest.mark.parametrize(("stepd", "target", "reason", "path", "known"), ELSEWHERE)
def test_same_step__says_why_not(stepd: bytes, target: bytes, reason: str, path: str, known: bool) -> None:
    names = {
        "v1": "/slurm/uid_1001/job_7/step_extern",
        "v2": "/system.slice/n1_slurmstepd.scope/job_5/step_extern",
    }
    found = same_step(stepd, target)
    assert found == Membership(False, reason.format(**names), path.format(**names), known)
    assert found.inside is False


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (V1_ADOPTED, True),
        (V1_ADOPTED.replace(b"step_extern", b"step_batch"), False),
        (V2_STEPD, False),
        (V2_ADOPTED.replace(b"step_extern", b"step_0"), False),
        (V2_ADOPTED.replace(b"/user/task_0", b""), False),
        (b"0::/user.slice\n", False),
        (V2_ADOPTED.replace(b"/task_0", b"/task_0 (deleted)"), False),
    ],
)
def test_extern_step(text: bytes, is_one: bool) -> None:
    found = extern_step(decode_cgroups(text))
    assert (found is not None and found.step == "extern") == is_one


@pytest.mark.parametrize(
    ("stepd", "target", "same"),
    [
        (V1_STEPD, V1_ADOPTED, True),
        (V1_STEPD, V1_STEPD, True),
        (V1_STEPD, V1_ADOPTED.replace(b"step_extern", b"step_batch"), True),
        (V1_STEPD, V1_ADOPTED.replace(b"job_1", b"job_11"), False),
        (
            V1_STEPD,
            V1_ADOPTED.replace(b"9:cpuset:/slurm_vm/uid_1001/job_1", b"9:cpuset:/slurm_vm/uid_1001/job_2"),
            False,
        ),
        (V1_STEPD, V1_ADOPTED.replace(b"12:freezer:/slurm_vm/uid_1001/job_1/step_extern", b"12:freezer:/"), False),
        (V1_STEPD, V1_ADOPTED.replace(b"12:freezer", b"13:freezer"), False),
        (V2_STEPD, V2_ADOPTED.replace(b"step_extern", b"step_0"), True),
        (V2_STEPD, V2_ADOPTED.replace(b"step_extern/user/task_0", b"step_0+1/user/task_0"), True),
        (V2_STEPD, V2_ADOPTED.replace(b"/task_0", b"/task_0 (deleted)"), False),
        (V2_STEPD, V2_ADOPTED.replace(b"job_5", b"job_51"), False),
        (V2_STEPD, V2_ADOPTED.replace(b"0::", b"0::/user.slice"), False),
        (V2_SLUID_STEPD, V2_SLUID_ADOPTED.replace(b"step_extern", b"step_batch"), True),
        (V2_SLUID_STEPD, V2_ADOPTED, False),
        (b"4:freezer:/slurm/uid_1001/job_7\n", b"4:freezer:/slurm/uid_1001/job_8\n", False),
        (V2_ADOPTED, b"", False),
        (b"", V2_ADOPTED, False),
        (b"", b"", False),
        (V2_STEPD[:-1], V2_ADOPTED, False),
    ],
)
def test_same_job__any_step(stepd: bytes, target: bytes, same: bool) -> None:
    assert same_job(stepd, target) is same


@pytest.mark.parametrize(
    ("target", "jobs", "job"),
    [
        (V1_ADOPTED, (7, 1), 1),
        (V1_ADOPTED.replace(b"step_extern", b"step_0"), (1,), 1),
        (V1_ADOPTED, (7,), 0),
        (V2_ADOPTED, (1, 5), 5),
        (V2_ADOPTED.replace(b"/task_0", b"/task_0 (deleted)"), (5,), 0),
        (V2_SLUID_ADOPTED, (7,), 7),
        (V2_SLUID_ADOPTED, (7, 8), 0),
        (V2_ADOPTED, (), 0),
        (b"3:cpu:/\n" + V1_PLAIN_ADOPTED, (7,), 7),
        (b"0::/user.slice\n", (5,), 0),
        (V2_ADOPTED[:-1], (5,), 0),
        (b"", (5,), 0),
    ],
)
def test_job_by_name(target: bytes, jobs: tuple[int, ...], job: int) -> None:
    assert job_by_name(target, jobs) == job


V1_OTHER_STEPD = V1_STEPD.replace(b"/job_1/", b"/job_2/").replace(b"/job_1\n", b"/job_2\n")


@pytest.mark.parametrize(
    ("stepds", "target", "own"),
    [
        ([V1_STEPD, V1_OTHER_STEPD], V1_ADOPTED, True),
        ([V1_STEPD, V1_OTHER_STEPD], V1_ADOPTED.replace(b"/job_1/", b"/job_2/", 1), True),
        ([V1_STEPD, V1_OTHER_STEPD], V1_ADOPTED.replace(b"/job_1/", b"/job_3/", 1), False),
        ([V1_STEPD], V1_ADOPTED.replace(b"/job_1/", b"/job_2/", 1), False),
        ([V1_STEPD, V1_OTHER_STEPD], V1_ADOPTED.replace(b"step_extern", b"step_0", 1), False),
        ([V1_STEPD, V1_OTHER_STEPD], V1_ADOPTED.replace(b"12:freezer:/slurm_vm/uid_1001/job_1", b"12:freezer:"), False),
        ([V2_STEPD], V2_ADOPTED, True),
        ([V2_STEPD], b"0::/user.slice\n", False),
        ([], V1_ADOPTED, False),
        ([b""], b"", False),
        ([V2_STEPD], V2_ADOPTED[:-1], False),
    ],
)
def test_between_steps(stepds: list[bytes], target: bytes, own: bool) -> None:
    assert between_steps(stepds, target) is own


def test_same_step__malformed() -> None:
    assert not same_step(V2_STEPD[:-1], V2_ADOPTED).inside
    assert not same_step(V2_STEPD, V2_ADOPTED[:-1]).inside
    assert same_step(V2_STEPD[:-1], V2_ADOPTED).step_known


@pytest.mark.parametrize(
    "stepd",
    [
        b"",
        b"0::/user.slice\n",
        b"0::/system.slice/slurmstepd.scope/job_5/step_extern/user/task_0\n",
        b"0::/system.slice/slurmstepd.scope/job_5/step_extern/slurm (deleted)\n",
        b"0::/system.slice/slurmstepd.scope/job_5/step_batch/slurm\n",
        b"4:freezer:/slurm/uid_1/job_1\n3:cpuset:/slurm/uid_1/job_2/step_extern\n",
    ],
)
def test_same_step__a_stepd_that_proves_nothing(stepd: bytes) -> None:
    target = b"""\
4:freezer:/slurm/uid_1/job_1/step_extern
3:cpuset:/slurm/uid_1/job_2/step_extern
0::/system.slice/slurmstepd.scope/job_5/step_extern/user/task_0
"""
    proof = same_step(stepd, target)
    assert not proof.inside
    assert proof.step_known == (b"job" in stepd)


@given(st.binary(max_size=200))
def test_cgroup_path__raises_nothing_else(text: bytes) -> None:
    try:
        lines = decode_cgroups(text)
    except RemoteProtocolError:
        return
    extern_step(lines)
    same_step(text, text)


PARTS = st.sampled_from(
    [
        "slurm",
        "slurm_x",
        "uid_1",
        "uid_",
        "job_1",
        "job_x",
        "step_extern",
        "step_0",
        "slurmstepd.scope",
        "a_slurmstepd.scope",
        SLUID,
        "user",
        "..",
        "",
        "task_0",
    ]
)


@given(st.lists(PARTS, max_size=9), st.integers(0, 3))
def test_cgroup_path__any_folders(parts: list[str], hierarchy: int) -> None:
    line = CgroupLine(hierarchy, (), "/" + "/".join(parts), False)
    found = decode_v2(line.path) if hierarchy == 0 else decode_v1(line.path)
    if found is not None:
        assert found.top + found.rest == line.path
        assert line.path.startswith(found.prefix)
    text = f"{hierarchy}::{line.path}\n".encode()
    assert not same_step(text, text).inside or hierarchy


@pytest.mark.parametrize(
    ("stepd", "folder"),
    [
        (b"0::/system.slice/vm_slurmstepd.scope/job_7/step_extern/slurm\n", "/system.slice/vm_slurmstepd.scope/job_7"),
        (V2_STEPD, decode_v2(V2_STEPD.decode().strip().partition("::")[2]).top.rpartition("/")[0]),  # type: ignore[union-attr]
        (b"0::/system.slice/slurmstepd.scope/job_7/step_0/slurm\n", ""),
        (b"0::/system.slice/slurmstepd.scope/system\n", ""),
        (b"0::/system.slice/slurmstepd.scope/job_7/step_extern/slurm (deleted)\n", ""),
        (V1_STEPD, ""),
        (b"", ""),
        (b"what", ""),
    ],
)
def test_job_folder(stepd: bytes, folder: str) -> None:
    assert job_folder(stepd) == folder
