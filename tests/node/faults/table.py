# SPDX-License-Identifier: Apache-2.0
"""The table of faults: what happens, and what a login then gets, by default and with profile=strict.

docs/security/failure-table.md is this table (`python -m tests.node.faults.table` writes it); test_faults.py proves each
row in an isolated node. alice has no job but what the fault makes, bob has a real one, carol has another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3] / name) for name in ("", "src", "tools")]

from tests.conformance.situations import Rig  # noqa: E402
from tests.node.faults import breakages  # noqa: E402
from tests.node.faults.breakages import fake, helper, spool_entry  # noqa: E402

from slurm_adopt.model import REASONS  # noqa: E402

TABLE = Path(__file__).parents[3] / "docs" / "security" / "failure-table.md"
DENY, ALLOW, IGNORE = "perm_denied", "success", "ignore"
#: What the module itself tells a refused user, when there is no answer to carry out.
MODULE_TEXTS = {
    "helper-unreachable": "the login helper could not be reached",
    "helper-untrusted": "the login helper is not root's",
    "helper-bad-reply": "the login helper's answer was malformed",
    "helper-timeout": "the login helper did not answer in time",
    "request-too-large": "the request does not fit",
}


@dataclass(frozen=True)
class Fault:
    """One row. `reasons`: code in the log by default and with profile=strict; `cause`: why the adoption failed, a
    second code in the same line; `in_job`: a job that the login is in all the same."""

    name: str
    event: str
    set_up: Callable[[Rig], AbstractContextManager[object]]
    reasons: tuple[str, str]
    results: tuple[str, str]
    cause: str = ""
    user: str = "alice"
    in_job: str = ""
    #: timeout=1, and what a busy machine adds; without the deadline it would be a minute
    within_s: float = 15.0
    args: str = ""

    @property
    def test(self) -> str:
        return f"test_faults__row[{self.name}]"

    def text(self) -> str:
        """What the user reads with profile=strict, in the words of the product."""
        reason = self.reasons[1]
        if self.results[1] != DENY:
            return ""
        return MODULE_TEXTS.get(reason) or REASONS[reason].user_text


NO_JOB = (("no-job", "no-job"), (DENY, DENY))
UNRESPONSIVE = (("steps-unresponsive", "steps-unresponsive"), (DENY, DENY))
NOT_ADOPTED = (("adopt-failed-allowed", "adopt-failed"), (ALLOW, DENY))
ENDING = (("job-ending", "job-ending"), (DENY, DENY))


def _generic(reason: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """action_generic_failure: `ignore` by default."""
    return (reason, reason), (IGNORE, DENY)


def _unsafe(reason: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Somebody else than root may have brought it about, or the node has jobs that cannot be found: refused, unless the
    line says action_generic_failure=."""
    return (reason, reason), (DENY, DENY)


FAULTS = (
    # --- slurm.conf and the spool directory ---
    Fault("conf-missing", "No slurm.conf in any of its places, and no slurmd runs", breakages.conf_missing_without_slurmd, *_generic("slurm-conf-missing"), user="bob"),
    Fault("conf-lost", "slurm.conf is gone, and slurmd runs", breakages.conf_missing, *_unsafe("slurm-conf-lost"), user="bob"),
    Fault("conf-unreadable", "slurm.conf is a directory, or cannot be read", breakages.conf_directory, *_generic("slurm-conf-unreadable"), user="bob"),
    Fault("conf-untrusted", "slurm.conf may be written by everybody", breakages.conf_world_writable, *_unsafe("slurm-conf-untrusted"), user="bob"),
    Fault("conf-foreign", "slurm.conf belongs to an ordinary user", breakages.conf_of_user, *_unsafe("slurm-conf-untrusted"), user="bob"),
    Fault("conf-folder-untrusted", "Everybody may write to the folder of slurm.conf", breakages.conf_folder(0o777), *_unsafe("slurm-conf-untrusted"), user="bob"),
    Fault("conf-folder-foreign", "The folder of slurm.conf belongs to an ordinary user", breakages.conf_folder(owner="alice"), *_unsafe("slurm-conf-untrusted"), user="bob"),
    Fault("conf-taken-away", "Everybody may write to the folder of slurm.conf, and somebody has moved it away", breakages.conf_folder(0o777, taken_away=True), *_unsafe("slurm-conf-untrusted"), user="bob"),
    Fault("conf-folder-sticky", "The same with the sticky bit, as /tmp has it", breakages.conf_folder(0o1777), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only"),
    Fault("conf-own", "slurm.conf belongs to SlurmUser, who logs in", breakages.conf_of_slurm_user, *_generic("slurm-conf-untrusted"), user="bob"),
    Fault("conf-of-slurm-user", "slurm.conf belongs to SlurmUser, somebody else logs in", breakages.conf_of_slurm_user, ("adopted", "adopted"), (ALLOW, ALLOW), user="carol", in_job="carol's"),
    Fault("conf-malformed", "slurm.conf's SlurmdSpoolDir is no path", breakages.conf_malformed, *_generic("slurm-conf-malformed"), user="bob"),
    Fault("conf-include-loop", "slurm.conf includes itself", breakages.conf_include_loop, *_generic("slurm-conf-malformed"), user="bob"),
    Fault("conf-include-missing", "A file that slurm.conf includes is not there, and slurmd runs", breakages.conf_include_missing, *_unsafe("slurm-conf-lost"), user="bob"),
    Fault("spool-missing", "SlurmdSpoolDir does not exist", breakages.spool_missing, ("spool-dir-missing", "spool-dir-missing"), (DENY, DENY), user="bob"),
    Fault("spool-file", "SlurmdSpoolDir is a file", breakages.spool_file, *_unsafe("spool-dir-untrusted"), user="bob"),
    Fault("spool-world-writable", "Everybody may write to SlurmdSpoolDir", breakages.spool_world_writable, *_unsafe("spool-dir-untrusted"), user="bob"),
    Fault("spool-group-writable", "A group other than root's may write to SlurmdSpoolDir", breakages.spool_group_writable, *_unsafe("spool-dir-untrusted"), user="bob"),
    Fault("spool-foreign", "SlurmdSpoolDir belongs to an ordinary user", breakages.spool_of_user, *_unsafe("spool-dir-untrusted"), user="bob"),
    Fault("spool-own", "SlurmdSpoolDir belongs to SlurmUser, who logs in", breakages.spool_of_slurm_user, *_generic("spool-dir-untrusted"), user="bob"),
    Fault("spool-of-slurm-user", "SlurmdSpoolDir belongs to SlurmUser, somebody else logs in", breakages.spool_of_slurm_user, ("adopted", "adopted"), (ALLOW, ALLOW), user="carol", in_job="carol's"),
    Fault("spool-unreadable", "SlurmdSpoolDir cannot be opened (a loop of links)", breakages.spool_loop, *_generic("spool-dir-unreadable"), user="bob"),
    # --- what lies in the spool directory ---
    Fault("entry-file", "A plain file with a step's name", spool_entry("touch {path}"), *NO_JOB),
    Fault("entry-directory", "A directory with a step's name", spool_entry("mkdir {path}"), *NO_JOB),
    Fault("entry-fifo", "A FIFO with a step's name", spool_entry("mkfifo {path}"), *NO_JOB),
    Fault("entry-symlink", "A symbolic link to another job's socket", spool_entry("ln -s {bobs} {path}"), *NO_JOB),
    Fault("socket-stale", "A socket that nobody listens on", fake("stale socket"), *NO_JOB),
    Fault("socket-foreign", "A socket that belongs to an ordinary user", fake("somebody's socket"), *NO_JOB),
    Fault("listener-foreign", "A socket whose listener is not root", fake("nobody listens"), *UNRESPONSIVE, "step-untrusted"),
    Fault("backlog-full", "A socket whose queue is full", fake("backlog full"), *UNRESPONSIVE, "step-silent"),
    # --- a slurmstepd that cannot be asked ---
    Fault("silent", "slurmstepd accepts and says nothing", fake("silent on accept"), *UNRESPONSIVE, "step-silent"),
    Fault("silent-after-handshake", "slurmstepd falls silent after the handshake", fake("silent after handshake"), *UNRESPONSIVE, "step-silent"),
    Fault("silent-after-uid", "slurmstepd falls silent before its state", fake("silent after uid"), *UNRESPONSIVE, "step-silent"),
    Fault("stopped-own", "The user's own slurmstepd is stopped (SIGSTOP)", breakages.stop_stepd("only"), *UNRESPONSIVE, "step-silent", user="bob"),
    Fault("stopped-other", "Another user's slurmstepd is stopped", breakages.stop_stepd("carol's"), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only", args=" timeout=20", within_s=8.0),
    Fault("closes-on-accept", "slurmstepd closes at once", fake("closes on accept"), *UNRESPONSIVE, "step-closed"),
    Fault("closes-after-handshake", "slurmstepd closes after the handshake", fake("closes after handshake"), *UNRESPONSIVE, "step-closed"),
    Fault("closes-after-uid", "slurmstepd closes after the uid", fake("closes after uid"), *UNRESPONSIVE, "step-closed"),
    Fault("version-refused", "slurmstepd refuses the version (-1)", fake("refuses the version"), *UNRESPONSIVE, "step-malformed"),
    Fault("version-newer", "slurmstepd is of a release that nobody knows yet, and answers as those before it", fake("newer", like="only"), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only"),
    Fault("zeros", "slurmstepd answers zeros", fake("zeros"), *UNRESPONSIVE, "step-malformed"),
    Fault("garbage", "slurmstepd answers with text", fake("garbage"), *UNRESPONSIVE, "step-untrusted"),
    Fault("endless", "slurmstepd answers without end", fake("endless"), *UNRESPONSIVE, "step-untrusted"),
    Fault("impostor", "The listener says that it is another process", fake("impostor"), *UNRESPONSIVE, "step-untrusted"),
    Fault("impostor-init", "The listener says that it is process 1", fake("says process 1"), *UNRESPONSIVE, "step-untrusted"),
    Fault("uid-foreign", "The step belongs to another user", fake("says root's"), *NO_JOB),
    # --- the job's state ---
    Fault("starting", "The only job is not ready: its prolog runs", fake("starting"), ("job-starting", "job-starting"), (DENY, DENY)),
    Fault("ending", "The only job is ending", fake("ending"), *ENDING),
    Fault("cancelled", "The only job is cancelled (23.11 and later)", fake("cancelled 25.11"), *ENDING),
    Fault("state-unknown", "A state that nobody knows", fake("state 99"), *ENDING),
    Fault("state-negative", "A negative state", fake("state -1"), *ENDING),
    Fault("closes-instead-of-adding", "The job ends while the login is adopted", fake("closes instead of adding"), *ENDING, "step-ending"),
    # --- a slurmstepd that does not adopt ---
    Fault("refuses", "slurmstepd refuses to add the process", fake("refuses to add"), *NOT_ADOPTED, "adopt-refused"),
    Fault("refuses-oddly", "slurmstepd answers a code that nobody knows", fake("answers 77 to add"), *NOT_ADOPTED, "adopt-refused"),
    Fault("lies", "slurmstepd says 0 but has not moved the process", fake("lies"), *NOT_ADOPTED, "adopt-unconfirmed"),
    Fault("lies-in-job", "The same, from within the cgroups of a real job", fake("lies", like="only"), *NOT_ADOPTED, "adopt-unconfirmed", user="bob"),
    Fault("silent-on-add", "slurmstepd does not answer “add”", fake("silent on add"), *NOT_ADOPTED, "step-silent"),
    Fault("endless-on-add", "slurmstepd answers “add” without end", fake("endless on add"), *NOT_ADOPTED, "adopt-refused"),
    Fault("undecided", "slurmstepd answers neither yes nor no", fake("neither yes nor no"), *NOT_ADOPTED, "step-malformed"),
    # --- adopted, but what the session needs besides does not come ---
    Fault("x11-closes", "slurmstepd closes when asked for X11", fake("closes on X11", like="only"), *NOT_ADOPTED, "step-closed", user="bob", in_job="only"),
    Fault("x11-silent", "slurmstepd does not answer for X11", fake("silent on X11", like="only"), *NOT_ADOPTED, "step-silent", user="bob", in_job="only"),
    Fault("x11-negative", "XAUTHORITY with a length of -1", fake("X11 path of -1", like="only"), *NOT_ADOPTED, "step-malformed", user="bob", in_job="only"),
    Fault("x11-huge", "XAUTHORITY with a length of 2 GiB", fake("X11 path of 2 GiB", like="only"), *NOT_ADOPTED, "step-malformed", user="bob", in_job="only"),
    Fault("x11-unterminated", "XAUTHORITY without its NUL", fake("X11 path without end", like="only"), *NOT_ADOPTED, "step-malformed", user="bob", in_job="only"),
    Fault("namespaces-close", "slurmstepd closes when asked for namespaces", fake("closes on namespaces", like="only"), *NOT_ADOPTED, "step-closed", user="bob", in_job="only"),
    Fault("namespaces-silent", "slurmstepd does not answer for namespaces", fake("silent on namespaces", like="only"), *NOT_ADOPTED, "step-silent", user="bob", in_job="only"),
    Fault("namespaces-silent-25.11", "The same, 25.11 and later", fake("silent on namespaces 25.11", like="only"), *NOT_ADOPTED, "step-silent", user="bob", in_job="only"),
    Fault("namespaces-fail", "slurmstepd cannot open the job's namespace", fake("no namespace", like="only"), *NOT_ADOPTED, "namespace-failed", user="bob", in_job="only"),
    Fault("namespaces-without-descriptor", "A namespace without its descriptor", fake("namespace without descriptor", like="only"), *NOT_ADOPTED, "step-malformed", user="bob", in_job="only"),
    Fault("namespaces-too-many", "99 namespaces", fake("99 namespaces 25.11", like="only"), *NOT_ADOPTED, "namespace-failed", user="bob", in_job="only"),
    Fault("namespaces-newer", "A namespace of a kind that nobody knows yet", fake("namespace of a newer kind", like="only"), *NOT_ADOPTED, "namespace-failed", user="bob", in_job="only"),
    # --- the kernel's setting for grace periods (hasten=) ---
    Fault("hasten-read-only", "/sys/kernel/rcu_expedited cannot be written (`hasten=`)", breakages.setting("0\n", 0, f"mount -o remount,bind,ro {breakages.SWITCH}"), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only", args=" timeout=20 hasten=yes"),
    Fault("hasten-left", "A login was killed before it could put /sys/kernel/rcu_expedited back: the next one does", breakages.setting(breakages.LEFT, 0), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only", args=" timeout=20 hasten=yes"),
    Fault("hasten-foreign", "The administrator has set /sys/kernel/rcu_expedited: it stays", breakages.setting("1\n", 1), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only", args=" timeout=20 hasten=yes"),
    Fault("hasten-no-lock", "/run/slurm-adopt/hasten cannot be opened: nothing is hastened", breakages.setting("0\n", 0, "mkdir -p /run/slurm-adopt/hasten"), ("adopted", "adopted"), (ALLOW, ALLOW), user="bob", in_job="only", args=" timeout=20 hasten=yes"),
    # --- the helper ---
    Fault("helper-missing", "The helper's file is not there", helper(None), *_generic("helper-unreachable"), user="bob"),
    Fault("helper-not-executable", "The helper is not executable", helper("exit 0", mode=0o644), *_generic("helper-unreachable"), user="bob"),
    Fault("helper-writable", "Everybody may write to the helper", helper("exit 0", mode=0o777), *_generic("helper-untrusted"), user="bob"),
    Fault("helper-foreign", "The helper belongs to an ordinary user", helper("exit 0", owner="alice"), *_generic("helper-untrusted"), user="bob"),
    Fault("helper-killed", "The helper is killed", helper("kill -9 $$"), *_generic("helper-unreachable"), user="bob"),
    Fault("helper-crashes", "The helper ends without an answer", helper("exit 1"), *_generic("helper-unreachable"), user="bob"),
    Fault("helper-hangs", "The helper hangs", helper("sleep 600"), *_generic("helper-timeout"), user="bob"),
    Fault("helper-garbage", "The helper answers nonsense", helper("dd bs=4096 count=1 >/dev/null 2>&1; echo nonsense >&0"), *_generic("helper-bad-reply"), user="bob"),
    Fault("package-broken", "A file of the package is damaged", breakages.package_broken, *_generic("helper-unreachable"), user="bob"),
    Fault("package-wrong", "A fault in slurm-adopt itself", breakages.package_wrong, *_generic("internal-error"), user="bob"),
    Fault("request-too-large", "More options on the PAM line than the exchange carries", lambda _: nullcontext(), *_generic("request-too-large"), user="bob", args=" x" * 40),
)  # fmt: skip

#: Codes that say no failure: with service-busy the one-shot helper decides. Those of `slurm-adopt move` and `use` begin
#: with user-; no login depends on them.
NO_FAILURE = {
    "exempt",
    "session-exempt",
    "other-service",
    "service-busy",
    "adopted",
    "adopt-deferred",
    "would-adopt",
    "session-verified",
    "session-readopted",
    "session-not-ours",
    "session-closed",
    "root",
}


@dataclass(frozen=True)
class Other:
    """A row that another test proves; `test` is `file::name` below tests/."""

    reason: str
    event: str
    default: str
    strict: str
    test: str

    def text(self) -> str:
        return REASONS[self.reason].user_text if self.strict == "deny" else ""


#: Caller ID never refuses and never admits.
CALLER_LOST = "as if it named no job: `action_unknown=`"
ELSEWHERE = (
    Other("no-job", "`hint_jobs=yes`, and slurmctld accepts and says nothing, or drips: the refusal comes half a second later at most, without a list; the service asks again after half a minute", "deny", "deny", "node/login/test_hints.py::test_hints__slurmctld_is_silent"),
    Other("no-job", "`hint_jobs=yes`, and slurmctld is down", "deny", "deny", "node/login/test_hints.py::test_hints__slurmctld_is_gone"),
    Other("no-job", "`hint_jobs=yes`, and slurmctld's answer is malformed, of another user, or names what is no node", "deny", "deny", "node/system/test_controller_hostile.py::test_controller_hostile__no_answer"),
    Other("no-job", "`hint_jobs=yes`, and the user has more jobs than are read (512 KiB, some 500 jobs): a refusal without a list", "deny", "deny", "node/login/test_hints.py::test_hints__more_jobs_than_are_read"),
    Other("unknown-denied", "Several jobs, none named, action_unknown=deny", "deny", "deny", "conformance/test_conformance.py::test_conformance__case"),
    Other("unknown-allowed", "Several jobs, none named, action_unknown=allow", "allow, in no job", "allow, in no job", "conformance/test_conformance.py::test_conformance__case"),
    Other("adopted", "slurmstepd does not answer the adoption, another job of the user's takes the login in, and then the first one does it all the same", "allow, in the other job: the resident service puts it back", "allow, in the other job: the resident service puts it back", "node/resident/test_late_answers.py::test_late_answers__a_login_stays_in_the_job_that_took_it_in"),
    Other("caller-foreign", "Caller ID names a job that is not the user's", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__a_job_of_somebody_else_is_never_joined"),
    Other("caller-not-a-node", "The login comes from an address of no node (a login node, a laptop)", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__a_listener_on_the_login_node_is_not_asked"),
    Other("caller-silent", "slurmd of the source node accepts and says nothing", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__a_silent_slurmd_costs_its_budget_and_no_more"),
    Other("caller-skipped", "The same a moment later, or behind a firewall that drops packets (resident service)", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__dropped_packets_cost_the_resident_services_users_one_wait"),
    Other("caller-unreachable", "slurmd of the source node is down", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__a_slurmd_that_is_down"),
    Other("caller-refused", "slurmd of the source node refuses the question", CALLER_LOST, CALLER_LOST, "node/system/test_callerid_hostile.py::test_callerid__gives_up_after_four_versions"),
    Other("caller-malformed", "slurmd's answer is malformed", CALLER_LOST, CALLER_LOST, "node/system/test_callerid_hostile.py::test_callerid__not_an_answer"),
    Other("caller-untrusted", "slurmd's answer is not authentic", CALLER_LOST, CALLER_LOST, "node/system/test_callerid_hostile.py::test_callerid__not_authentic"),
    Other("caller-no-credential", "munged is down on this node", CALLER_LOST, CALLER_LOST, "node/system/test_callerid.py::test_callerid__without_munge_here"),
    Other("user-unknown", "NSS does not know the user", "deny (session error)", "deny (session error)", "conformance/test_conformance.py::test_conformance__case"),
    Other("deadline", "The login's time was up somewhere else", "ignore", "deny", "unit/login/test_login_faults.py::test_login_faults__have_a_reason_and_the_generic_action"),
    Other("step-gone", "A socket is gone before it is asked", "as if it was not there", "as if it was not there", "node/faults/test_faults.py::test_faults__row"),
    Other("step-foreign", "A step turns out to be another user's just before the adoption", "allow, in no job (`adopt-failed-allowed`)", "deny (`adopt-failed`)", "unit/login/test_login_faults.py::test_login_faults__step_of_another_user_is_not_even_asked"),
    Other("step-untracked", "proctrack/linuxproc or proctrack/pgid: Slurm has no cgroup of the job to put a login into", "allow, in no job (`adopt-failed-allowed`)", "deny (`adopt-failed`)", "node/login/test_untracked.py::test_untracked__strict_refuses_and_says_why"),
    Other("process-changed", "The process to adopt ended meanwhile", "allow, in no job (`adopt-failed-allowed`)", "deny (`adopt-failed`)", "unit/login/test_login_faults.py::test_login_faults__process_that_is_gone"),
    Other("user-manager-failed", "`user_manager=refuse`, and systemd does not end the user's manager, or does not answer", "allow, in the job, the log says it", "deny", "vm/test_managers_of_users.py::test_user_manager__a_manager_that_cannot_be_ended"),
    Other("session-escapes", "pam_systemd in the session stack, cgroup v2, no session line of ours after it", "allow, outside (`adopt-failed-allowed`)", "deny (`adopt-failed`)", "vm/test_systemd_session.py::test_systemd_session__account_line_alone_never_leaves_a_session_outside"),
    Other("session-uncertain", "It cannot be told from the PAM files whether pam_systemd will move this user's session (a jump over it that depends on a module that nobody knows), and no session line of ours settles it", "allow, in the job, the log says it", "deny (`adopt-failed`)", "unit/login/test_expect.py::test_expect__what_the_files_do_not_tell"),
    Other("namespace-deferred", "Job with namespaces, keyboard-interactive, no session line", "allow, in the job but not its namespaces (`adopt-failed-allowed`)", "deny (`adopt-failed`)", "node/login/test_namespace_deferred.py::test_namespace_deferred__keyboard_interactive"),
    Other("job-suspended", "The user's job is suspended (`scontrol suspend`, gang scheduling)", "deny", "deny", "node/login/test_suspended.py::test_suspended__refused_at_once_and_nobody_else_is_kept_out"),
    Other("step-suspended", "The job is suspended just while slurmstepd adopts", "deny (`job-suspended`), the login is taken out again", "deny (`job-suspended`), the login is taken out again", "node/login/test_suspended.py::test_suspended__in_the_middle_of_a_login"),
    Other("step-elsewhere", "Whoever asks is in another pid namespace than slurmstepd", "as if the step did not answer", "as if the step did not answer", "node/resident/test_known_step.py::test_known_step__in_another_pid_namespace"),
    Other("join-failed", "The kernel refuses a namespace", "allow; deny if half joined", "deny", "module/test_carry_out.py::test_carry_out__join"),
)  # fmt: skip


def render() -> str:
    """The table as Markdown."""
    lines = [
        "# What happens when something is broken",
        "",
        "One row per fault. Each is set up in an isolated node with real Slurm by the test named last, which checks all columns,",
        "that the login takes no longer than `timeout=` and a second, and that root gets in. This file is made from the table in",
        "`tests/node/faults/table.py` by `python -m tests.node.faults.table`; `src/slurm_adopt/model.py` says what each code means.",
        "",
        "What somebody else than root may have brought about (`-untrusted`), and what is lost while slurmd runs",
        "(`slurm-conf-lost`), is refused by default as well: the default of `action_generic_failure` is for a machine on which",
        "Slurm cannot be asked. A line that names `action_generic_failure=` decides these, too. SlurmUser's own logins, if what",
        "would decide about them is SlurmUser's, follow `action_generic_failure` and its default.",
        "",
        "*Default* is a PAM line without options, *strict* one with `profile=strict`; `ignore` leaves the login to the other",
        "modules of the stack, which usually admit it. With `action_*` options of its own a site chooses otherwise.",
        "",
        "| What happens | Reason code | Default | Strict | What the user reads (strict) | Test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for fault in FAULTS:
        codes = " / ".join(f"`{code}`" for code in dict.fromkeys(fault.reasons))
        codes += f" (`{fault.cause}`)" if fault.cause else ""
        default, strict = (WORDS[result] for result in fault.results)
        where = f", in job *{fault.in_job}*" if fault.in_job else ""
        lines.append(f"| {fault.event} | {codes} | {default}{where} | {strict} | {fault.text()} | `{fault.test}` |")
    for other in ELSEWHERE:
        lines.append(
            f"| {other.event} | `{other.reason}` | {other.default} | {other.strict} | {other.text()} | `{other.test}` |"
        )
    return "\n".join(lines) + "\n"


WORDS = {DENY: "deny", ALLOW: "allow", IGNORE: "ignore"}

if __name__ == "__main__":
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(render())
