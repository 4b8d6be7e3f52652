# SPDX-License-Identifier: Apache-2.0
"""The one table of options: the parser and the README read it.

Rules of this file:
1. Names and values are matched exactly. The original matches prefixes: `denyXYZ` is deny there, and so a typo passes.
2. `stricter` is what an unknown value becomes: never weaker than any documented one.
3. `strict` is what `profile=strict` sets.
"""

from __future__ import annotations

from ..record import record

LOG_LEVELS = ("quiet", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "debug5")
LOG_NUMBERS = tuple(str(number) for number in range(10))


@record
class OptionSpec:
    """One option. `values` are the words it takes, default first; empty for free text, described by `form`."""

    name: str
    values: tuple[str, ...]
    doc: str
    stricter: str = ""
    strict: str = ""
    form: str = ""
    default: str = ""
    origin: str = "original"


OPTIONS = (
    OptionSpec(
        "action_no_jobs",
        ("deny", "ignore"),
        "The user has no job on this node: refuse, or leave it to the other modules.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec(
        "action_unknown",
        ("newest", "preferred", "allow", "deny"),
        "Several jobs, and caller ID names none: take the one that started last, the one chosen with `slurm-adopt use` "
        "(else the newest), let in outside all jobs, or refuse.",
        stricter="deny",
    ),
    OptionSpec(
        "action_adopt_failure",
        ("allow", "deny"),
        "The login could not be put into any job: let it in all the same (unsafe), or refuse.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec(
        "action_generic_failure",
        ("ignore", "allow", "deny"),
        "Slurm could not be asked at all: leave it to the other modules (unsafe), let in (unsafe), or refuse.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec("disable_x11", ("0", "1"), "1: leave DISPLAY alone, even if the job forwards X11.", stricter="1"),
    OptionSpec(
        "join_container",
        ("true", "false"),
        "Join the namespaces of job_container/tmpfs and namespace/*.",
        stricter="true",
    ),
    OptionSpec(
        "log_level",
        LOG_LEVELS + LOG_NUMBERS,
        "How much is logged: a SlurmdDebug name or number.",
        stricter="info",
        default="info",
    ),
    OptionSpec("nodename", (), "This node's NodeName, where it is not `hostname -s`.", form="a NodeName of slurm.conf"),
    OptionSpec(
        "service",
        (),
        "The PAM services to work in; `*` is all. Any other service is left alone, and named in the log at "
        "`log_level=verbose`.",
        form="names of PAM services with commas, or *",
        default="sshd",
    ),
    OptionSpec(
        "allow_users",
        (),
        "Users who are neither adopted nor refused, with jobs or without: PAM_SUCCESS, in the session phase too.",
        form="user names or @netgroups, with commas",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "allow_groups",
        (),
        "The same for the members of groups.",
        form="names or numbers of groups, with commas",
        origin="slurm-adopt",
    ),
    OptionSpec("ignore_root", ("1", "0"), "0: root is adopted if root has a job here; never refused.", stricter="1"),
    OptionSpec(
        "single_job_skip_rpc",
        ("1", "0"),
        "0: caller ID is asked for even if the user has only one job here.",
        stricter="1",
    ),
    OptionSpec(
        "timeout",
        (),
        "The longest a login may take here, in seconds.",
        form="seconds from 0.1 to 300",
        default="5",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "prolog_wait",
        (),
        "How long a login waits, within `timeout`, if the user's only job here is still starting; 0: not at all.",
        form="seconds from 0 to 300",
        default="2",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "caller_timeout",
        (),
        "How long a login of a user with several jobs may wait for its source node to say which one it comes from; "
        "never more than half of what is left of `timeout`.",
        form="seconds from 0.1 to 60",
        default="1",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "rlimits",
        ("keep", "job"),
        "`job`: the session gets the resource limits that Slurm gave the job, instead of pam_limits' (session phase).",
        stricter="keep",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "export_env",
        (),
        "Variables of the job for the session: `none` (needs the session line), `id` is SLURM_JOB_ID alone, `job` adds "
        "what holds for the whole job on this node (SLURM_JOB_*, visible GPUs) and nothing of a single task; or names.",
        form="none, id, job, or names of variables with commas",
        default="id",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "runtime_dir",
        ("none", "user"),
        "`user`: XDG_RUNTIME_DIR is the directory that the shipped prolog hook makes for users with jobs on the node.",
        stricter="none",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "user_manager",
        ("keep", "refuse", "confine"),
        "The user's systemd manager, which pam_systemd starts outside of all jobs (session phase): keep it, end it "
        "before the session begins, or hold all it starts to the CPUs and the memory of the user's jobs.",
        stricter="refuse",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "mode",
        ("auto", "service", "oneshot"),
        "Ask the resident service if it is there, only it, or always start the one-shot helper.",
        stricter="auto",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "socket",
        (),
        "The resident service's socket.",
        form="an absolute path",
        default="/run/slurm-adopt/login.sock",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "greeting",
        ("off", "on"),
        "Tell an interactive session in one line which job it is in, why, and how long it will last.",
        stricter="off",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "user_move",
        ("no", "yes"),
        "`yes`: `slurm-adopt move` may put a running login into another job of its user (sshd's account line).",
        stricter="no",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "profile",
        ("compatible", "strict"),
        "`strict` sets action_no_jobs, action_adopt_failure and action_generic_failure to deny.",
        stricter="strict",
        origin="slurm-adopt",
    ),
)

BY_NAME = {spec.name: spec for spec in OPTIONS}


def default_of(spec: OptionSpec) -> str:
    """The value that holds when the option is not on the line."""
    return spec.default or (spec.values[0] if spec.values else "")
