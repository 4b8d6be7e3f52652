# SPDX-License-Identifier: Apache-2.0
"""The one table of options. The parser and the generated documentation read it.

Rules of this file:
1. Names and values are matched exactly. The original matches prefixes: it takes `denyXYZ` for `deny`.
2. An unknown value counts as `stricter`, which is never weaker than any documented value.
3. `strict` is what `profile=strict` sets.
"""

from __future__ import annotations

from ..record import record

LOG_LEVELS = ("quiet", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "debug5")
LOG_NUMBERS = tuple(str(number) for number in range(10))


@record
class OptionSpec:
    """One option. `values` are the words it accepts, default first; empty for free text, which `form` describes."""

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
        "If the user has no job on this node: refuse, or leave the decision to the other modules.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec(
        "action_unknown",
        ("newest", "preferred", "allow", "deny"),
        "If the user has several jobs and caller ID names none: use the one that started last, use the one chosen with "
        "`slurm-adopt use` (else the newest), let the login in outside all jobs, or refuse.",
        stricter="deny",
    ),
    OptionSpec(
        "action_adopt_failure",
        ("allow", "deny"),
        "If the login could not be put into any job: let it in all the same (unsafe), or refuse.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec(
        "action_generic_failure",
        ("ignore", "allow", "deny"),
        "If Slurm could not be asked at all: leave the decision to the other modules (unsafe), let the login in "
        "(unsafe), or refuse. Without this option, a login is refused if somebody other than root may have caused it, "
        "or if slurmd runs but its slurm.conf is not found.",
        stricter="deny",
        strict="deny",
    ),
    OptionSpec("disable_x11", ("0", "1"), "`1` leaves DISPLAY alone, even if the job forwards X11.", stricter="1"),
    OptionSpec(
        "join_container",
        ("true", "false"),
        "`true` joins the namespaces of job_container/tmpfs and namespace/*.",
        stricter="true",
    ),
    OptionSpec(
        "log_level",
        LOG_LEVELS + LOG_NUMBERS,
        "How much is logged: a SlurmdDebug name or number.",
        stricter="info",
        default="info",
    ),
    OptionSpec("nodename", (), "This node's NodeName, if it is not `hostname -s`.", form="a NodeName of slurm.conf"),
    OptionSpec(
        "slurm_conf",
        (),
        "The slurm.conf to read. Without this option it is the one that the running slurmd uses, or else the one in "
        "the usual places.",
        form="an absolute path",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "service",
        (),
        "The PAM services that the module acts in; `*` means all. It ignores every other service, and names it in the "
        "log at `log_level=verbose`.",
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
    OptionSpec(
        "ignore_root", ("1", "0"), "`0` adopts root if root has a job here. Root is never refused.", stricter="1"
    ),
    OptionSpec(
        "single_job_skip_rpc",
        ("1", "0"),
        "`0` looks up the caller ID even if the user has only one job here.",
        stricter="1",
    ),
    OptionSpec(
        "timeout",
        (),
        "The longest time that a login may take here, in seconds, for each phase. A slurmstepd of the user's that does "
        "not answer while another one has is waited for 0.3 seconds, or a sixteenth of what is left if that is more.",
        form="seconds from 0.1 to 300",
        default="5",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "prolog_wait",
        (),
        "How long a login waits, within `timeout`, if the user's only job here is still starting. `0` does not wait.",
        form="seconds from 0 to 300",
        default="2",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "caller_timeout",
        (),
        "How long a login of a user with several jobs may wait for its source node to take the question which job it "
        "comes from. A node that has taken it may be busy, and has four times as long to answer. A login never waits "
        "longer than half of what is left of `timeout`.",
        form="seconds from 0.1 to 60",
        default="1",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "rlimits",
        ("keep", "job"),
        "`job` gives the session the resource limits that Slurm gave the job, instead of pam_limits' (session phase).",
        stricter="keep",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "export_env",
        (),
        "Which variables of the job the session gets. `id` is SLURM_JOB_ID alone. `job` adds what holds for the whole "
        "job on this node (SLURM_JOB_*, visible GPUs), and nothing of a single task. `none` needs the session line.",
        form="none, id, job, or names of variables with commas",
        default="id",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "runtime_dir",
        ("none", "user"),
        "`user` sets XDG_RUNTIME_DIR to the directory that the shipped prolog hook makes for users with jobs here.",
        stricter="none",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "user_manager",
        ("keep", "refuse", "confine"),
        "What happens to the user's systemd manager, which pam_systemd starts outside of all jobs (session phase): "
        "keep it, end it before the session begins, or confine it to the CPUs and the memory of the user's jobs.",
        stricter="refuse",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "mode",
        ("auto", "service", "oneshot"),
        "`auto` asks the resident service, and starts the one-shot helper if the service does not answer. `service` "
        "and `oneshot` use only one of them.",
        stricter="auto",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "socket",
        (),
        "The socket of the resident service.",
        form="an absolute path",
        default="/run/slurm-adopt/login.sock",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "hasten",
        ("auto", "yes", "no"),
        "While slurmstepd moves a login, let the kernel expedite its grace periods (Linux 6.0 and later): `auto` not "
        "where processors are isolated (`nohz_full=`, `isolcpus=`), `yes` also there, `no` never.",
        stricter="no",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "greeting",
        ("off", "on"),
        "`on` tells an interactive session in one line which job it is in, why, and how long the job will last.",
        stricter="off",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "user_move",
        ("no", "yes"),
        "`yes` allows `slurm-adopt move` to put a running login into another job of its user (sshd's account line).",
        stricter="no",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "hint",
        (),
        "The site's own sentence and address, added to what a refused user reads. With blanks the whole option stands "
        "in brackets: `[hint=Questions? help@example.org]`, and a `]` in it is written `\\]`.",
        form="one line of at most 160 bytes, all of it printable",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "hint_jobs",
        ("no", "yes"),
        "`yes` tells a user who is refused for want of a job here on which nodes the user's own jobs are. slurmctld is "
        "asked, for half a second at most.",
        stricter="no",
        origin="slurm-adopt",
    ),
    OptionSpec(
        "enforce",
        ("yes", "adopt", "no"),
        "`adopt`: whoever has a job goes into it, and nobody is refused. `no`: each login is decided and logged, and "
        "nothing is changed: to see what the line would do. `profile=strict` does not touch it.",
        stricter="yes",
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


DEFAULTS = {spec.name: default_of(spec) for spec in OPTIONS}
