# SPDX-License-Identifier: Apache-2.0
"""Which variables and limits a session may take over from its job, without a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.login.session import environment
from slurm_adopt.login.session import rlimits as limits
from slurm_adopt.options.export import JOB_NAMES, NAMEABLE, export_patterns, export_problem, is_export, matches
from slurm_adopt.options.parse import parse_options
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.slurm.prolog import _job_in_prolog


@pytest.mark.parametrize(
    "name",
    ["SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_ARRAY_TASK_ID", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"],
)
def test_job_values__of_the_job(name: str) -> None:
    assert matches(name, JOB_NAMES)


@pytest.mark.parametrize(
    "name",
    ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID", "SLURM_TASK_PID", "SLURM_JOBID", "SLURM_CONF"]
    + ["PMI_RANK", "PMIX_RANK", "LD_PRELOAD", "PATH", "BASH_ENV", "HOME", "PYTHONPATH", "SLURM_TASKS_PER_NODE"],
)
def test_job_values__not_of_the_job(name: str) -> None:
    assert not matches(name, JOB_NAMES)


@pytest.mark.parametrize("value", ["none", "id", "job", "CUDA_VISIBLE_DEVICES", "SLURM_NNODES,OMP_NUM_THREADS,TMPDIR"])
def test_job_values__values_of_export_env(value: str) -> None:
    assert parse_options([f"export_env={value}"]).problems == ()


@pytest.mark.parametrize(
    "value",
    ["", "None", "none,id", "LD_PRELOAD", "SLURM_NNODES,PATH", "SLURM_*", "SLURM_CONF", "job,", "a b", "HOME", ","]
    + [
        "OMP_TOOL_LIBRARIES",
        "CUDA_INJECTION64_PATH",
        "SLURM_TASK_PROLOG",
        "SLURM_EPILOG",
        "CUDA_HOME,MKL_PATH",
        "SLURM_JWT",
    ],
)
def test_job_values__a_bad_list_exports_the_id_alone(value: str) -> None:
    options = parse_options([f"export_env={value}"])
    assert options.export_env == "id"
    assert len(options.problems) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LD_PRELOAD", "makes programs load a library"),
        ("LD_AUDIT", "makes programs load a library"),
        ("OMP_TOOL_LIBRARIES", "makes programs load a library"),
        ("CUDA_INJECTION64_PATH", "makes programs load a library"),
        ("PATH", "says where programs"),
        ("CUDA_CACHE_PATH", "says where programs"),
        ("CUDA_HOME", "says where programs"),
        ("BASH_ENV", "makes an interpreter or a tool run code"),
        ("PYTHONSTARTUP", "makes an interpreter or a tool run code"),
        ("PERL5OPT", "makes an interpreter or a tool run code"),
        ("GIT_SSH", "makes an interpreter or a tool run code"),
        ("SLURM_TASK_PROLOG", "says which program is run"),
        ("SLURM_CONTAINER", "says which program is run"),
        ("HIP_COMPILER", "says which program is run"),
        ("SLURM_EXPORT_ENV", "sets other variables"),
        ("SLURM_CONF", "makes programs read other settings"),
        ("SLURM_JWT", "is a secret"),
        ("FOO", "is none of"),
        ("SLURM_*", "is none of"),
    ],
)
def test_job_values__a_refusal_names_the_variable_and_says_why(name: str, why: str) -> None:
    assert not matches(name, NAMEABLE) or "*" in name
    (problem,) = parse_options([f"export_env=CUDA_VISIBLE_DEVICES,{name}"]).problems
    assert f"({name} {why}" in problem


def test_job_values__other_refusals() -> None:
    assert "(an empty name)" in parse_options(["export_env=TMPDIR,"]).problems[0]
    assert "(job is none of" in parse_options(["export_env=job,TMPDIR"]).problems[0]
    assert "(more than 32 names)" in parse_options(["export_env=" + ",".join(["TMPDIR"] * 33)]).problems[0]


@pytest.mark.parametrize(
    "name",
    ["OMP_PROC_BIND", "OMP_PLACES", "OMP_NUM_THREADS", "OMP_DISPLAY_ENV", "OMP_STACKSIZE", "OMP_TEAMS_THREAD_LIMIT"]
    + ["CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_MODULE_LOADING"]
    + [
        "CUDA_CACHE_DISABLE",
        "CUDA_DEVICE_ORDER",
        "NVIDIA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
    ]
    + ["MKL_NUM_THREADS", "MKL_ENABLE_INSTRUCTIONS", "SLURM_NNODES", "SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK"]
    + [
        "SLURM_JOB_NAME",
        "SLURM_JOB_LICENSES",
        "SLURM_SUBMIT_DIR",
        "SLURM_MPI_TYPE",
        "SLURM_TOPOLOGY_ADDR_PATTERN",
        "TMPDIR",
    ],
)
def test_job_values__what_stays_allowed(name: str) -> None:
    assert parse_options([f"export_env={name}"]).problems == ()


def test_job_values__nothing_of_job_is_refused() -> None:
    assert not [name for name in JOB_NAMES if not matches(name.replace("*", "X"), JOB_NAMES)]


@pytest.mark.parametrize("name", ["TMPDIR", "SLURM_SUBMIT_DIR", "CUDA_MPS_PIPE_DIRECTORY"])
def test_job_values__a_folder_is_an_absolute_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"relative": (), "./x": (), "": (), "/scratch/7": ((name, "/scratch/7"),)}
    for value, expected in values.items():
        monkeypatch.setattr(environment, "read_environ", lambda _, value=value: f"{name}={value}".encode())
        assert environment.collect_variables((name,), 0, [Process(1, 1)]) == expected


@given(st.text(max_size=60))
def test_job_values__no_value_reaches_beyond_the_list(value: str) -> None:
    patterns = export_patterns(value)
    assert is_export(value) or patterns == ()
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "ENV", "SLURM_CONF", "IFS"):
        assert not matches(name, patterns)


@given(st.binary(max_size=3000))
def test_job_values__an_environment_of_any_bytes_is_read(text: bytes) -> None:
    for name, value in environment._decode(text):
        assert name.isascii()
        assert value.isprintable()


@given(st.dictionaries(st.from_regex(r"\A[A-Z_]{1,20}\Z"), st.text("abc", max_size=512), max_size=80))
def test_job_values__what_is_exported_fits_the_reply(found: dict[str, str]) -> None:
    kept = environment._fitting(found)
    assert len(kept) <= environment.COUNT_CAP
    assert sum(len(name) + len(value) + 8 for name, value in kept) <= environment.TOTAL_CAP


def test_job_values__visible_gpus_come_first() -> None:
    found = {f"SLURM_JOB_{number:03}": "x" * 100 for number in range(60)} | {"ZE_AFFINITY_MASK": "0"}
    assert ("ZE_AFFINITY_MASK", "0") in environment._fitting(found)


PROC_LIMITS = b"""\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             1024                 unlimited            bytes     
"""  # noqa: W291  # as the kernel writes it


def test_job_values__limits_as_the_kernel_writes_them() -> None:
    assert limits._decode(PROC_LIMITS) == [(-1, -1), (1024, -1)]
    assert limits._decode(b"") == []
    assert limits._decode(PROC_LIMITS.replace(b"1024     ", b"-1       ")) == []


def test_job_values__the_highest_limit_is_no_higher_than_one_that_was_given() -> None:
    assert limits._highest((10, 100), (20, 50)) == (20, 100)
    assert limits._highest((-1, -1), (20, 50)) == (-1, -1)
    assert limits._smaller(-1, 5) == 5
    assert limits._smaller(7, 5) == 5
    assert limits._smaller(-1, -1) == -1


NONE = limits.INFINITY
GIB = 1 << 30


@pytest.mark.parametrize(
    ("number", "job", "own", "expected"),
    [
        (4, (NONE, NONE), (0, NONE), (0, NONE)),  # core: the soft one is the login's own
        (4, (0, 0), (NONE, NONE), (0, 0)),
        (0, (1, 1), (NONE, NONE), (NONE, NONE)),  # CPU, FSIZE, NPROC never fall ...
        (1, (0, 4096), (100, 5000), (100, 5000)),
        (6, (1, 1), (4000, 8000), (4000, 8000)),
        (6, (9000, NONE), (4000, 8000), (9000, NONE)),  # ... but rise
        (7, (8, 8), (5000, 5000), (256, 256)),  # the others have floors ...
        (7, (777, 4096), (5000, 5000), (777, 4096)),
        (7, (8, 8), (100, 200), (100, 200)),  # ... which pam_limits has to have given
        (7, (8, 8), (100, NONE), (100, 256)),
        (9, (4096, 4096), (NONE, NONE), (GIB, GIB)),
        (2, (4096, NONE), (NONE, NONE), (GIB, NONE)),
        (3, (1, 1), (NONE, NONE), (1 << 20, 1 << 20)),
        (8, (0, 0), (65536, 65536), (0, 0)),  # MEMLOCK is as the job has it
        (8, (NONE, NONE), (65536, 65536), (NONE, NONE)),
    ],
)
def test_job_values__what_a_login_gets(
    number: int, job: tuple[int, int], own: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert limits.limit_for(number, job, own) == expected


LIMIT = st.one_of(st.just(NONE), st.integers(0, 1 << 40))
PAIR = st.tuples(LIMIT, LIMIT).map(lambda pair: (limits._smaller(*pair), pair[1]))


@given(st.integers(0, limits.COUNT - 1), PAIR, PAIR)
def test_job_values__no_limit_is_more_than_job_or_pam_limits_gave(
    number: int, job: tuple[int, int], own: tuple[int, int]
) -> None:
    soft, hard = limits.limit_for(number, job, own)
    assert limits._smaller(soft, hard) == soft, "the kernel refuses others"
    for given_one, one, other in ((soft, job[0], own[0]), (hard, job[1], own[1])):
        assert limits._larger(given_one, limits._larger(one, other)) == limits._larger(one, other)


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        (b"SLURM_SCRIPT_CONTEXT=prolog_slurmd\0SLURM_JOB_UID=1501\0SLURM_JOB_ID=7\0", 7),
        (b"SLURM_SCRIPT_CONTEXT=epilog_slurmd\0SLURM_JOB_UID=1501\0SLURM_JOB_ID=7\0", 0),
        (b"SLURM_SCRIPT_CONTEXT=prolog_slurmd\0SLURM_JOB_UID=15010\0SLURM_JOB_ID=7\0", 0),
        (b"SLURM_SCRIPT_CONTEXT=prolog_slurmd\0SLURM_JOB_UID=1501\0SLURM_JOB_ID=7x\0", 0),
        (b"SLURM_SCRIPT_CONTEXT=prolog_slurmd\0SLURM_JOB_UID=1501\0", 0),
        (b"", 0),
    ],
)
def test_job_values__whose_prolog_it_is(environ: bytes, job: int) -> None:
    assert _job_in_prolog(environ, 1501) == job


#: What slurmstepd of 22.05.8, 24.11.5 and 26.05.5 gives a task and not the job, and what makes programs believe it.
OF_A_TASK = (
    "SLURM_GTIDS SLURM_JOBID SLURM_LAUNCH_NODE_IPADDR SLURM_LOCALID SLURM_NODEID SLURM_NPROCS SLURM_NTASKS"
    " SLURM_NTASKS_PER_NODE SLURM_PROCID SLURM_SRUN_COMM_HOST SLURM_SRUN_COMM_PORT SLURM_STEPID SLURM_STEP_ID"
    " SLURM_STEP_NODELIST SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_TASK_PID"
    " SLURM_PMI_KVS_NO_DUP_KEYS PMI_RANK PMI_SIZE PMI_FD PMIX_RANK OMPI_COMM_WORLD_RANK RANK WORLD_SIZE LOCAL_RANK"
).split()


@pytest.mark.parametrize("name", OF_A_TASK)
def test_job_values__no_session_is_taken_for_a_task(name: str) -> None:
    """Neither with `job` nor by name."""
    assert not matches(name, JOB_NAMES)
    assert not is_export(name)
    if name.startswith("SLURM_"):
        assert "a task of the job" in export_problem(f"SLURM_JOB_NAME,{name}")


@pytest.mark.parametrize("name", ["SLURM_ARRAY_TASK_ID", "SLURM_JOB_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NODELIST"])
def test_job_values__what_holds_for_the_job_is_no_tasks(name: str) -> None:
    assert is_export(name)
