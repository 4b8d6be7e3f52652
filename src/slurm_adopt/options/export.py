# SPDX-License-Identifier: Apache-2.0
"""Which variables of a job a session may get, for `export_env=`.

Rules of this file:
1. Only names on a list. sshd puts PAM's variables into the session before the user's shell or ForceCommand runs:
   LD_PRELOAD, PATH or BASH_ENV from a job would break out of a forced command.
2. `job` is what holds for the job as a whole on this node. What belongs to one task (SLURM_PROCID, SLURM_LOCALID,
   PMI*) makes MPI programs and JAX believe that they are that task. The old names SLURM_JOBID, SLURM_NODELIST and
   SLURM_TASKS_PER_NODE are left out too: Open MPI takes SLURM_JOBID for a sign that Slurm has started it.
"""

from __future__ import annotations

#: What `export_env=job` means; a name that ends with `*` is a beginning.
JOB_NAMES = (
    "SLURM_JOB_*",
    "SLURM_ARRAY_*",
    "SLURM_MEM_PER_*",
    "SLURM_CLUSTER_NAME",
    "SLURM_CPUS_ON_NODE",
    "SLURM_GPUS_ON_NODE",
    "SLURM_SUBMIT_DIR",
    "SLURM_SUBMIT_HOST",
    "SLURMD_NODENAME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)
#: What a site may name besides, one by one.
NAMEABLE = (*JOB_NAMES, "SLURM_*", "CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*", "OMP_*", "MKL_*", "TMPDIR")
#: Never either: a session with one of these is taken for a task of the job. with SLURM_JOBID Open MPI
#: 4.1.4 starts nothing, with SLURM_NTASKS Lightning 2.6 detects Slurm (seen); the others are ranks, steps and PMI.
TASK_NAMES = (
    "SLURM_GTIDS",
    "SLURM_JOBID",
    "SLURM_LAUNCH_*",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NPROCS",
    "SLURM_NTASKS*",
    "SLURM_PMI*",
    "SLURM_PROCID",
    "SLURM_SRUN_*",
    "SLURM_STEP*",
    "SLURM_TASK_PID",
    "SLURM_TASKS_PER_NODE",
)
#: Never, whoever names it: parts of `_NAME`, and what a variable with such a name does. Only the families of `NAMEABLE`
#: get this far; the others stand here so that who names one reads why.
NEVER = (
    (
        ("_LD_", "_DYLD_", "_LIB", "PRELOAD", "INJECTION", "_TOOL", "PLUGIN", "SPANK", "_GCONV"),
        "makes programs load a library or plugin",  # OMP_TOOL_LIBRARIES, CUDA_INJECTION64_PATH, HSA_TOOLS_LIB
    ),
    (("PATH", "_HOME", "_ROOT"), "says where programs, libraries or settings are"),  # CUDA_CACHE_PATH: compiled code
    (
        ("PROLOG", "EPILOG", "CONTAINER", "COMPILER", "NVCC", "_SHELL", "EDITOR", "PAGER", "BROWSER", "_COMMAND"),
        "says which program is run",  # SLURM_TASK_PROLOG, and SLURM_CONTAINER: the bundle that srun starts
    ),
    (("EXPORT",), "sets other variables"),  # SLURM_EXPORT_ENV=ALL,LD_PRELOAD=...: as srun --export
    (
        (
            "PYTHON",
            "PERL",
            "RUBY",
            "JAVA",
            "NODE_OPTIONS",
            "_LUA",
            "JULIA",
            "BASH",
            "ZDOTDIR",
            "_GIT_",
            "_MAKE",
            "_LESS",
        ),
        "makes an interpreter or a tool run code",
    ),
    (("_CONF",), "makes programs read other settings"),
    (("_JWT", "_SACK", "_KEY", "TOKEN", "SECRET", "PASSW"), "is a secret"),
)
LIST_CAP = 32
#: Words for SLURM_JOB_ID alone, and for not even that.
PLAIN = ("id", "none")


def why_never(name: str) -> str:
    """What the variable does that no session gets from a job; empty if it does nothing of the kind."""
    if _is_one_of(name, TASK_NAMES):
        return "makes programs believe that they are a task of the job"
    return next((why for parts, why in NEVER if any(part in f"_{name}" for part in parts)), "")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a variable's name is one of `patterns`, and none that is never taken."""
    return _is_one_of(name, patterns) and not why_never(name)


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])) for pattern in patterns)


def may_be(name: str, value: str) -> bool:
    """Whether the variable may have this value: a folder relative to wherever a program is started is none."""
    return value.startswith("/") or not name.endswith(("DIR", "DIRECTORY"))


def export_patterns(value: str) -> tuple[str, ...]:
    """The names that a value of `export_env=` stands for, beside SLURM_JOB_ID; empty if it cannot be understood or
    means no further variable."""
    if value == "job":
        return JOB_NAMES
    names = tuple(value.split(","))
    return names if value not in PLAIN and is_export(value) else ()


def is_export(value: str) -> bool:
    """Whether `export_env=` takes this value."""
    return not export_problem(value)


def export_problem(value: str) -> str:
    """Why `export_env=` does not take this value, in words that name the variable; empty if it does."""
    if value in (*PLAIN, "job"):
        return ""
    names = value.split(",")
    if len(names) > LIST_CAP:
        return f"more than {LIST_CAP} names"
    for name in names:
        if not name:
            return "an empty name"
        if why_never(name):
            return f"{name} {why_never(name)}"
        if "*" in name or not matches(name, NAMEABLE):
            return f"{name} is none of {', '.join(NAMEABLE[len(JOB_NAMES) :])} or of `job`, each in full"
    return ""
