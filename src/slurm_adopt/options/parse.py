# SPDX-License-Identifier: Apache-2.0
"""The options of a PAM line.

Rules of this file:
1. Pure. A line never fails to parse: what is wrong with it is a problem in words, and the setting becomes stricter.
2. An option that stands there twice: the last one holds, as everywhere in PAM, and that is reported.
"""

from __future__ import annotations

from ..record import record
from .schema import BY_NAME, DEFAULTS, LOG_LEVELS, OPTIONS, OptionSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Action, Enforce, Hasten


@record
class Options:
    """The settings of one PAM line, with `problems` (one sentence each) for the log."""

    action_no_jobs: Action
    action_unknown: str
    action_adopt_failure: Action
    action_generic_failure: Action
    disable_x11: bool
    join_container: bool
    log_level: int
    nodename: str
    slurm_conf: str
    services: tuple[str, ...]
    allow_users: tuple[str, ...]
    allow_groups: tuple[str, ...]
    ignore_root: bool
    single_job_skip_rpc: bool
    timeout_s: float
    prolog_wait_s: float
    caller_timeout_s: float
    rlimits: str
    export_env: str
    runtime_dir: str
    user_manager: str
    mode: str
    socket: str
    hasten: Hasten
    greeting: bool
    user_move: bool
    enforce: Enforce
    profile: str
    #: whether the line says what action_generic_failure is to be
    is_generic_failure_set: bool = False
    problems: tuple[str, ...] = ()

    def works_in(self, service: str) -> bool:
        """Whether the line is for this PAM service."""
        return service in self.services or self.services == ("*",)

    @property
    def takes_over(self) -> bool:
        """Whether the session gets more from its job than membership, SLURM_JOB_ID and X11."""
        return self.rlimits != "keep" or self.export_env not in ("id", "none") or self.runtime_dir != "none"


def parse_options(args: Iterable[str]) -> Options:
    """The words after the module's name on a PAM line, as settings."""
    values = dict(DEFAULTS)
    problems: list[str] = []
    seen = set()
    for arg in args:
        name, mark, value = arg.partition("=")
        spec = BY_NAME.get(name)
        if spec is None or not mark:
            problems.append(f"unknown option {arg!r}{_hint(name)}")
            continue
        if name in seen:
            problems.append(f"{name}= stands there twice, the last one holds")
        seen.add(name)
        if _fits(spec, value):
            values[name] = value
        else:
            values[name] = spec.stricter or DEFAULTS[name]
            problems.append(f"{arg!r} {_why_not(spec, value)}; {name}={values[name]} is used")
    if values["profile"] == "strict":
        for spec in OPTIONS:
            if spec.strict:
                values[spec.name] = spec.strict
    return Options(
        action_no_jobs=values["action_no_jobs"],  # type: ignore[arg-type]  # one of the words in the table
        action_unknown=values["action_unknown"],
        action_adopt_failure=values["action_adopt_failure"],  # type: ignore[arg-type]
        action_generic_failure=values["action_generic_failure"],  # type: ignore[arg-type]
        disable_x11=values["disable_x11"] == "1",
        join_container=values["join_container"] == "true",
        log_level=_level(values["log_level"]),
        nodename=values["nodename"],
        slurm_conf=values["slurm_conf"],
        services=tuple(values["service"].split(",")),
        allow_users=_names(values["allow_users"]),
        allow_groups=_names(values["allow_groups"]),
        ignore_root=values["ignore_root"] == "1",
        single_job_skip_rpc=values["single_job_skip_rpc"] == "1",
        timeout_s=float(values["timeout"]),
        prolog_wait_s=float(values["prolog_wait"]),
        caller_timeout_s=float(values["caller_timeout"]),
        rlimits=values["rlimits"],
        export_env=values["export_env"],
        runtime_dir=values["runtime_dir"],
        user_manager=values["user_manager"],
        mode=values["mode"],
        socket=values["socket"],
        hasten=values["hasten"],  # type: ignore[arg-type]
        greeting=values["greeting"] == "on",
        user_move=values["user_move"] == "yes",
        enforce=values["enforce"],  # type: ignore[arg-type]
        profile=values["profile"],
        is_generic_failure_set="action_generic_failure" in seen or values["profile"] == "strict",
        problems=tuple(problems),
    )


def _fits(spec: OptionSpec, value: str) -> bool:
    if spec.values:
        return value in spec.values
    if spec.name == "timeout":
        return _seconds_ok(value, 0.1, 300)
    if spec.name == "prolog_wait":
        return _seconds_ok(value, 0, 300)
    if spec.name == "caller_timeout":
        return _seconds_ok(value, 0.1, 60)
    if spec.name == "export_env":
        from .export import is_export  # here, because few lines have it, and every login would pay

        return is_export(value)
    if spec.name == "socket":
        return value.startswith("/") and len(value.encode("utf-8", "surrogateescape")) < 108
    if spec.name == "slurm_conf":
        return value.startswith("/") and len(value) < 1024
    if spec.name == "nodename":
        return 0 < len(value) <= 255 and "/" not in value
    if spec.name == "service":
        return len(value.encode("utf-8", "surrogateescape")) <= 255 and _are_names(value)
    if spec.name == "allow_users":
        return _are_names(value) and "@" not in value.split(",")
    return _are_names(value) and not any(name.startswith("@") for name in value.split(","))  # allow_groups


def _are_names(value: str) -> bool:
    """Names of 1 to 64 bytes with commas between them."""
    sizes = [len(name.encode("utf-8", "surrogateescape")) for name in value.split(",")]
    return min(sizes) > 0 and max(sizes) <= 64


def _names(value: str) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _why_not(spec: OptionSpec, value: str) -> str:
    why = ""
    if spec.name == "export_env":
        from .export import export_problem

        why = f" ({export_problem(value)})"
    return f"is not one of: {', '.join(spec.values) if spec.values else spec.form}{why}"


def _seconds_ok(value: str, least: float, most: float) -> bool:
    whole, mark, part = value.partition(".")
    digits = whole.isascii() and whole.isdigit() and len(whole) <= 3
    if mark:
        digits = digits and part.isascii() and part.isdigit() and len(part) <= 3
    return digits and least <= float(value) <= most


def _level(value: str) -> int:
    return int(value) if value.isdigit() else LOG_LEVELS.index(value)


def _hint(name: str) -> str:
    """The option that was probably meant: the same letters but for case, or one starting the other."""
    for known in BY_NAME:
        if known == name.lower() or (len(name) > 4 and (known.startswith(name) or name.startswith(known))):
            return f" (did you mean {known}=?)"
    return ""
