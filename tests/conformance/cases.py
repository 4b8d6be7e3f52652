# SPDX-License-Identifier: Apache-2.0
"""The table: every option and value in every situation, what is expected of both modules, and where ours differs.

Rules of this file:
1. Both modules do the same, unless a `Differs` says what ours does instead, and why, with the requirement's number.
2. An expectation is written for both; besides, a test compares the two measured outcomes with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .outcome import ALLOWED, ANY, IGNORED, Outcome, adopted, denied
from .situations import Call

LEVELS = tuple(
    f"log_level={value}"
    for value in ("fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "0", "6", "9")
)
#: "": the defaults.
OPTIONS = (
    "",
    *(f"action_no_jobs={value}" for value in ("deny", "ignore")),
    *(f"action_unknown={value}" for value in ("newest", "allow", "deny")),
    *(f"action_adopt_failure={value}" for value in ("allow", "deny")),
    *(f"action_generic_failure={value}" for value in ("ignore", "allow", "deny")),
    *(f"disable_x11={value}" for value in ("0", "1")),
    *(f"join_container={value}" for value in ("true", "false")),
    *(f"log_level={value}" for value in ("quiet", "debug5")),
    *(f"nodename={value}" for value in ("lab", "elsewhere")),
    *(f"service={value}" for value in ("sshd", "*", "cron")),
    *(f"ignore_root={value}" for value in ("1", "0")),
    *(f"single_job_skip_rpc={value}" for value in ("1", "0")),
    "profile=strict",
    "mode=oneshot timeout=10",
)
#: The options that a situation without jobs to choose from can depend on.
ACTIONS = tuple(option for option in OPTIONS if option.startswith(("action_", "profile", "ignore_root")) or not option)


@dataclass(frozen=True)
class Differs:
    """What ours does instead of what the original does, and why."""

    ours: Outcome
    why: str


@dataclass(frozen=True)
class Situation:
    """One place and person to log in: `usual` is what the original does whatever the option, `but` by option;
    `differs` likewise for ours ("*": whatever the option; None: as the original)."""

    name: str
    call: Call
    usual: Outcome
    but: Mapping[str, Outcome] = field(default_factory=dict)
    differs: Mapping[str, Differs | None] = field(default_factory=dict)
    options: tuple[str, ...] = OPTIONS


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    situation: str
    call: Call
    original: Outcome
    differs: Differs | None = None
    original_or: tuple[Outcome, ...] = ()
    """What the original does at other times: it is a race, or its choice is arbitrary."""

    def explains_original(self, measured: Outcome) -> bool:
        """Whether the original did what the table says."""
        return any(measured.fits(expected) for expected in (self.original, *self.original_or))

    @property
    def ours(self) -> Outcome:
        return self.differs.ours if self.differs else self.original

    @property
    def name(self) -> str:
        return f"{self.situation}: {self.call.args or 'defaults'}"


def expand(situation: Situation) -> list[Case]:
    """The lines of one situation."""
    differs = situation.differs
    return [
        Case(
            situation.name,
            replace(situation.call, args=option),
            situation.but.get(option, situation.usual),
            differs[option] if option in differs else differs.get("*"),
        )
        for option in situation.options
    ]


NO_JOBS = denied("no jobs")
UNDETERMINED = denied("undetermined")
NOT_ADOPTED = denied("not adopted")
NEWEST = "the original takes any of the jobs on a multiple-slurmd build like Debian's, ours the one that started last"
EXACT = "the original takes a value by its beginning and in any case, and what it does not know for the default; ours takes the stricter one and says so"
FOREIGN = "the original puts the login into another user's job"
ELSEWHERE = {"nodename=elsewhere": NO_JOBS, "service=cron": IGNORED}

NEWEST_DIFFERS: dict[str, Differs | None] = {
    "*": Differs(adopted("newest"), NEWEST),
    "action_unknown=allow": None,
    "action_unknown=deny": None,
    "nodename=elsewhere": None,
    "service=cron": None,
}
SEVERAL = {
    **ELSEWHERE,
    "action_unknown=allow": ALLOWED,
    "action_unknown=deny": UNDETERMINED,
}

STEADY = (
    Situation("no job", Call(user="alice"), NO_JOBS, {"action_no_jobs=ignore": IGNORED, "service=cron": IGNORED}),
    Situation("one job", Call(user="bob"), adopted("only"), ELSEWHERE, options=(*OPTIONS, *LEVELS)),
    Situation("one job, no connection", Call(user="bob", caller=""), adopted("only"), ELSEWHERE),
    Situation("one job, from a job of carol's", Call(user="bob", caller="oldest"), adopted("only"), {
        **ELSEWHERE,
        "single_job_skip_rpc=0": adopted("oldest"),
    }, {"single_job_skip_rpc=0": Differs(adopted("only"), FOREIGN)}),
    Situation("several jobs", Call(user="carol"), adopted(ANY), SEVERAL, NEWEST_DIFFERS),
    Situation("several jobs, no connection", Call(user="carol", caller=""), adopted(ANY), SEVERAL, NEWEST_DIFFERS),
    Situation("several jobs, from one of them", Call(user="carol", caller="oldest"), adopted("oldest"), ELSEWHERE),
    Situation("several jobs, from a job of bob's", Call(user="carol", caller="only"), adopted("only"), ELSEWHERE, {
        "*": Differs(adopted("newest"), FOREIGN),
        "action_unknown=allow": Differs(ALLOWED, FOREIGN),
        "action_unknown=deny": Differs(UNDETERMINED, FOREIGN),
        "nodename=elsewhere": None,
        "service=cron": None,
    }),
    Situation("root", Call(user="root"), IGNORED),
    Situation("unknown user", Call(user="mallory"), Outcome("session_err"), {"service=cron": IGNORED}),
    Situation("other service", Call(user="bob", service="cron"), IGNORED, {
        "service=*": adopted("only"),
        "service=cron": adopted("only"),
    }),
    Situation("other service, no job", Call(user="alice", service="cron"), IGNORED, {
        "service=*": NO_JOBS,
        "service=cron": NO_JOBS,
    }),
)  # fmt: skip

ROOTS_JOB = (
    Situation("root with a job", Call(user="root"), IGNORED, {}, {
        "ignore_root=0": Differs(adopted("root's"), "the original does not do what ignore_root=0 says"),
    }),
)  # fmt: skip

HERE = "a login from the node itself needs no slurmd to be asked: ours looks for the source among its own processes"
SLURMD_DOWN = (
    Situation("slurmd down, no job", Call(user="alice"), NO_JOBS, {"action_no_jobs=ignore": IGNORED}, options=ACTIONS),
    Situation("slurmd down, one job", Call(user="bob"), adopted("only"), options=(*ACTIONS, "single_job_skip_rpc=0")),
    Situation(
        "slurmd down, several jobs",
        Call(user="carol", caller="outside"),
        adopted(ANY),
        {option: outcome for option, outcome in SEVERAL.items() if option in ACTIONS},
        NEWEST_DIFFERS,
        options=ACTIONS,
    ),
    Situation(
        "slurmd down, several jobs, from one of them",
        Call(user="carol", caller="oldest"),
        adopted(ANY),
        {option: outcome for option, outcome in SEVERAL.items() if option in ACTIONS},
        {"*": Differs(adopted("oldest"), HERE)},
        options=ACTIONS,
    ),
)

SPOOL_MISSING = (
    *(
        Situation(
            f"spool directory missing, {name}",
            Call(user=user),
            NO_JOBS,
            {"action_no_jobs=ignore": IGNORED},
            options=ACTIONS,
        )
        for name, user in (("no job", "alice"), ("one job", "bob"), ("several jobs", "carol"))
    ),
    Situation("spool directory missing, root", Call(user="root"), IGNORED, options=ACTIONS),
)

UNSAFE = (
    "for the original a spool directory that is none means “no jobs”; ours takes it for a fault, and lets nobody in "
    "for it unless the line says so"
)
SPOOL_A_FILE = (
    Situation(
        "spool directory is a file",
        Call(user="bob"),
        NO_JOBS,
        {"action_no_jobs=ignore": IGNORED},
        {
            "*": Differs(denied("unsafe"), UNSAFE),
            "action_generic_failure=ignore": Differs(IGNORED, UNSAFE),
            "action_generic_failure=allow": Differs(ALLOWED, UNSAFE),
        },
        ACTIONS,
    ),
    Situation("spool directory is a file, root", Call(user="root"), IGNORED, options=ACTIONS),
)

EXITS = Outcome("ends the process (exit 1)")
NO_EXIT = (
    "without slurm.conf the original ends sshd's process; ours does what action_generic_failure says, and refuses where "
    "the line does not say it, since slurmd runs"
)
CONF_MISSING = (
    *(
        Situation(
            f"slurm.conf missing, {name}",
            Call(user=user),
            EXITS,
            {},
            {
                "*": Differs(denied("lost"), NO_EXIT),
                "action_generic_failure=ignore": Differs(IGNORED, NO_EXIT),
                "action_generic_failure=allow": Differs(ALLOWED, NO_EXIT),
            },
            ACTIONS,
        )
        for name, user in (("no job", "alice"), ("one job", "bob"))
    ),
    Situation("slurm.conf missing, root", Call(user="root"), IGNORED, options=ACTIONS),
)

#: Values that the documentation does not know.
MISSPELT = tuple(
    Case(situation, Call(args, user), original, Differs(ours, EXACT) if ours else None)
    for situation, user, args, original, ours in (
        ("no job", "alice", "action_no_jobs=ignoreX", IGNORED, NO_JOBS),
        ("no job", "alice", "action_no_jobs=IGNORE", IGNORED, NO_JOBS),
        ("no job", "alice", "ACTION_NO_JOBS=ignore", IGNORED, NO_JOBS),
        ("no job", "alice", "action_no_jobs=ign", NO_JOBS, None),
        ("no job", "alice", "action_no_jobs=denyXYZ", NO_JOBS, None),
        ("no job", "alice", "action_no_jobs=", NO_JOBS, None),
        ("no job", "alice", "action_no_jobs", NO_JOBS, None),
        ("no job", "alice", "action_no_jobs=ignore action_no_jobs=deny", NO_JOBS, None),
        ("no job", "alice", "action_no_jobs=deny action_no_jobs=ignore", IGNORED, None),
        ("no job", "alice", "nonsense", NO_JOBS, None),
        ("no job", "alice", "nonsense=1 =2", NO_JOBS, None),
        ("one job", "bob", "nonsense", adopted("only"), None),
        ("one job", "bob", "nodename=", NO_JOBS, adopted("only")),
        ("one job", "bob", "service=", IGNORED, adopted("only")),
        ("one job", "bob", "service=SSHD", IGNORED, None),
        ("one job", "bob", "log_level=nonsense", adopted("only"), None),
        ("one job", "bob", "log_level=99", adopted("only"), None),
        ("one job", "bob", "join_container=nonsense", adopted("only"), None),
        ("one job", "bob", "disable_x11=2", adopted("only"), None),
        ("several jobs", "carol", "action_unknown=denyXYZ", UNDETERMINED, None),
        ("several jobs", "carol", "action_unknown=allowfoo", ALLOWED, UNDETERMINED),
        ("several jobs", "carol", "action_unknown=nonsense", adopted(ANY), UNDETERMINED),
        ("root", "root", "ignore_root=nonsense", IGNORED, None),
        ("root", "root", "action_no_jobs=denyXYZ nonsense ignore_root=0", IGNORED, None),
    )
)

QUIET = "on this path the original refuses without a word"
#: That of 26.05 says something there if slurmstepd has let it wait for a minute (60.5 s).
_LATE = (NOT_ADOPTED,)
FAILS = tuple(
    Case(
        "adoption fails",
        Call(args, "bob"),
        original,
        Differs(ours, why) if ours else None,
        _LATE if why is QUIET else (),
    )
    for args, original, ours, why in (
        ("", ALLOWED, None, ""),
        ("action_adopt_failure=allow", ALLOWED, None, ""),
        ("action_adopt_failure=deny", NOT_ADOPTED, None, ""),
        ("action_adopt_failure=nonsense", ALLOWED, NOT_ADOPTED, EXACT),
        ("action_no_jobs=ignore", ALLOWED, None, ""),
        ("single_job_skip_rpc=0", ALLOWED, None, ""),
        ("single_job_skip_rpc=0 action_adopt_failure=deny", Outcome("perm_denied"), NOT_ADOPTED, QUIET),
        ("profile=strict", ALLOWED, NOT_ADOPTED, "profile=strict is ours"),
    )
)

ENDING_WHY = "the original does not look at a job's state: it moves the login into the step that is being killed"
ENDED = denied("ending")
_KILLED = (adopted("ending", killed=True), Outcome("killed"))
ENDING = tuple(
    Case("job is ending", Call(args, "erin", linger_s=6), original, Differs(ours, ENDING_WHY), (*more, *_KILLED))
    for args, original, ours, more in (
        ("", Outcome("success", job="ending", killed=True), ENDED, ()),
        ("action_no_jobs=ignore", Outcome("success", job="ending", killed=True), IGNORED, ()),
        ("action_adopt_failure=deny", replace(NOT_ADOPTED, job="ending", killed=True), ENDED, ()),
        ("profile=strict", Outcome("success", job="ending", killed=True), ENDED, ()),
    )
) + tuple(
    Case(
        "one job is ending, one runs",
        Call(args, "dora", linger_s=6),
        adopted("running"),
        Differs(adopted("running"), f"{ENDING_WHY}, or takes the other one: it does not know"),
        (
            *((UNDETERMINED,) if args == "action_unknown=deny" else ()),
            ALLOWED,
            Outcome("success", job="ending too", killed=True),
            adopted("ending too", killed=True),
            Outcome("killed"),
        ),
    )
    for args in ("", "action_unknown=newest", "action_unknown=deny", "profile=strict")
)  # fmt: skip

LOST = "with caller ID the original loses its place in slurmstepd's answers, and joins no namespace"
_SCOPE = ("", "join_container=true", "join_container=false", "action_adopt_failure=deny", "profile=strict")
CONTAINERS = (
    Situation("job container, no job", Call(user="alice"), NO_JOBS, options=_SCOPE),
    Situation("job container, one job", Call(user="bob"), adopted("only", mount=True), {
        "join_container=false": adopted("only"),
    }, options=_SCOPE),
    Situation("job container, several jobs, from one of them", Call(user="carol", caller="oldest"), adopted("oldest"), {}, {
        "*": Differs(adopted("oldest", mount=True), LOST),
        "join_container=false": None,
    }, options=_SCOPE),
    Situation("job container, several jobs", Call(user="carol"), adopted(ANY, mount=True), {
        "join_container=false": adopted(ANY),
    }, {
        "*": Differs(adopted("newest", mount=True), NEWEST),
        "join_container=false": Differs(adopted("newest"), NEWEST),
    }, options=_SCOPE),
    Situation("job container, root", Call(user="root"), IGNORED, options=_SCOPE),
)  # fmt: skip
