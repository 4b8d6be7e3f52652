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
#: Never, whoever names it. These are parts of the names of what makes Slurm's commands read another configuration, runs
#: a program (SLURM_TASK_PROLOG), loads a library into every program of a kind (OMP_TOOL_LIBRARIES,
#: CUDA_INJECTION64_PATH), says where programs and libraries are, or is a secret.
NEVER_PARTS = (
    "_CONF",
    "PROLOG",
    "EPILOG",
    "INJECTION",
    "_TOOL",
    "_LIB",
    "_PATH",
    "PLUGIN",
    "SPANK",
    "_JWT",
    "_SACK",
    "_KEY",
)
LIST_CAP = 32
#: Words for SLURM_JOB_ID alone, and for not even that.
PLAIN = ("id", "none")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a variable's name is one of `patterns`."""
    if any(part in name for part in NEVER_PARTS):
        return False
    return any(name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])) for pattern in patterns)


def export_patterns(value: str) -> tuple[str, ...]:
    """The names that a value of `export_env=` stands for, beside SLURM_JOB_ID; empty if it cannot be understood or
    means no further variable."""
    if value == "job":
        return JOB_NAMES
    names = tuple(value.split(","))
    return names if value not in PLAIN and is_export(value) else ()


def is_export(value: str) -> bool:
    """Whether `export_env=` takes this value."""
    names = value.split(",")
    known = all(name and "*" not in name and matches(name, NAMEABLE) for name in names)
    return value in (*PLAIN, "job") or (known and len(names) <= LIST_CAP)
