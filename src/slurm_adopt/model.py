# SPDX-License-Identifier: Apache-2.0
"""The words of a login: facts, steps of the decision, verdicts, reason codes, and faults that carry one.

Rules of this file:
1. Values only: no I/O, no policy; imports nothing but `record`.
2. A reason code is for ever: never renamed, never given another meaning. Logs, the documents and the
   failure table all take it from `REASONS`.
"""

from __future__ import annotations

from .record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Action = Literal["allow", "deny", "ignore"]
    Phase = Literal["account", "open_session", "close_session"]
    #: Of an extern step.
    State = Literal["starting", "running", "suspended", "ending"]
    #: What `hasten=` says.
    Hasten = Literal["auto", "yes", "no"]
    #: How a job was picked (`Adopt.chosen`, `Verdict.chosen`).
    #: What our account line has answered before a session phase.
    AccountPhase = Literal["asked", "left", "skipped", "owed"]
    Chosen = Literal["", "only", "caller", "preferred", "newest", "account"]
    #: All of `REASONS` (a test holds both to each other), and none.
    ReasonCode = Literal[
        "",
        "adopted",
        "adopt-deferred",
        "would-adopt",
        "session-verified",
        "session-readopted",
        "session-not-ours",
        "session-exempt",
        "exempt",
        "other-service",
        "session-closed",
        "root",
        "no-job",
        "job-ending",
        "job-starting",
        "job-suspended",
        "spool-dir-missing",
        "steps-unresponsive",
        "unknown-denied",
        "unknown-allowed",
        "adopt-failed",
        "adopt-failed-allowed",
        "user-manager-failed",
        "slurm-conf-missing",
        "slurm-conf-lost",
        "slurm-conf-unreadable",
        "slurm-conf-untrusted",
        "slurm-conf-malformed",
        "spool-dir-untrusted",
        "spool-dir-unreadable",
        "internal-error",
        "deadline",
        "step-gone",
        "step-ending",
        "step-suspended",
        "step-silent",
        "step-closed",
        "step-malformed",
        "step-untrusted",
        "step-elsewhere",
        "step-foreign",
        "adopt-refused",
        "adopt-unconfirmed",
        "step-untracked",
        "process-changed",
        "namespace-failed",
        "namespace-deferred",
        "service-busy",
        "session-escapes",
        "session-uncertain",
        "helper-unreachable",
        "helper-untrusted",
        "helper-bad-reply",
        "helper-timeout",
        "user-unknown",
        "request-too-large",
        "join-failed",
        "user-jobs",
        "user-no-such-job",
        "user-job-not-running",
        "user-preference-set",
        "user-preference-cleared",
        "user-preference-failed",
        "user-moved",
        "user-not-a-login",
        "user-move-off",
        "user-move-in-the-way",
        "user-move-namespaces",
        "user-move-incomplete",
        "user-move-failed",
        "user-busy",
        "user-bad-request",
        "user-timeout",
        "caller-foreign",
        "caller-not-a-node",
        "caller-unreachable",
        "caller-silent",
        "caller-skipped",
        "caller-refused",
        "caller-malformed",
        "caller-untrusted",
        "caller-no-credential",
    ]
    #: The option `enforce=`.
    Enforce = Literal["yes", "adopt", "no"]
    CallerStatus = Literal["not-asked", "found", "unknown"] | ReasonCode


class Fault(Exception):
    """Something that a login, a command or a user's request ends with, or does without.

    `reason` is the code, `detail` says more, for the log. What has no code is no `Fault`: an error of our own
    set-up, or one that only says that somebody did not answer.
    """

    def __init__(self, reason: ReasonCode, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail


STARTING: State = "starting"
RUNNING: State = "running"
SUSPENDED: State = "suspended"
ENDING: State = "ending"

#: Why a slurmstepd's answer could not be used.
STEP_GONE: ReasonCode = "step-gone"
STEP_SILENT: ReasonCode = "step-silent"
STEP_CLOSED: ReasonCode = "step-closed"
STEP_MALFORMED: ReasonCode = "step-malformed"
STEP_UNTRUSTED: ReasonCode = "step-untrusted"
STEP_ENDING: ReasonCode = "step-ending"
STEP_SUSPENDED: ReasonCode = "step-suspended"

#: Words for ever, as reason codes are.
ONLY: Chosen = "only"
CALLER: Chosen = "caller"
PREFERRED: Chosen = "preferred"
NEWEST: Chosen = "newest"
ACCOUNT: Chosen = "account"
CHOICES = (ONLY, CALLER, PREFERRED, NEWEST, ACCOUNT)

#: `Facts.account_phase`.
ASKED: AccountPhase = "asked"
LEFT: AccountPhase = "left"
SKIPPED: AccountPhase = "skipped"
OWED: AccountPhase = "owed"

#: `Facts.user_manager`: the user's systemd manager is as `user_manager=` wants it.
HELD: Literal["held"] = "held"


@record
class StepFact:
    """One extern step of the user on this node.

    `started` orders steps by the time they really began: slurmstepd's start in clock ticks since boot (not moved by
    clock changes), then the socket's change time in ns, then the job id.
    """

    job_id: int
    state: State
    started: tuple[int, int, int]
    version: int = 0


@record
class CallerFact:
    """What network caller ID found: `status` is `not-asked`, `found`, `unknown` or a reason code; `job_id` if found.

    `detail` says why, in words for the log.
    """

    status: CallerStatus = "not-asked"
    job_id: int = 0
    source: str = ""
    detail: str = ""


@record
class Attempt:
    """One adoption that was tried: `failure` is empty if the kernel confirms it, else a reason code. One that is
    `deferred` was not tried yet, it is left to the session phase."""

    job_id: int
    chosen: Chosen
    failure: ReasonCode = ""
    detail: str = ""
    deferred: bool = False


@record
class Facts:
    """All that a decision may depend on.

    `fault` is a reason code if the steps could not be looked for at all, `is_own_fault` if that holds for this user
    only, to whom belongs what would decide about the login; `unanswered` are the reason codes of steps whose owner
    could not be learnt, `unanswered_jobs` the jobs of these steps, in the same order. `awaited_job` is the one of them
    that was given more time (0: none was). `account_job` is the job that the account phase put into the PAM
    environment; `account_chosen` is how it chose it, empty if that is not known. `member_of` is the job that the
    session is in already, as the kernel says (0: none). `preferred` is the job that the user has chosen with
    `slurm-adopt use` (0: none, or the site does not ask for it).
    `prologs` are the user's jobs whose prolog runs on this node, looked for only if the user has no running step here;
    `waited_ms` is how long the login waited for one to start (-1: it did not).
    `exempt` is the word of `allow_users=` or `allow_groups=` that the user is under.
    `account_phase` is what our account line did before this session phase: it was `asked`, and let the login in or left
    it to others; it `left` the login, having refused it or for an exemption; or it was `skipped`. Its answer is `owed`
    where it was not asked, and the stack says yes to nobody without it: the user's password has expired.
    `user_manager` is empty as long as nothing was done about the user's systemd manager, then `HELD` or a reason code.
    """

    phase: Phase
    service: str
    user: str
    uid: int
    source: str = ""
    fault: ReasonCode = ""
    is_own_fault: bool = False
    steps: tuple[StepFact, ...] = ()
    unanswered: tuple[ReasonCode, ...] = ()
    unanswered_jobs: tuple[int, ...] = ()
    awaited_job: int = 0
    caller: CallerFact = CallerFact()
    attempts: tuple[Attempt, ...] = ()
    account_job: int = 0
    member_of: int = 0
    account_chosen: Chosen = ""
    preferred: int = 0
    prologs: tuple[int, ...] = ()
    waited_ms: int = -1
    user_manager: ReasonCode | Literal["held"] = ""
    exempt: str = ""
    account_phase: AccountPhase = ASKED


@record
class AskCaller:
    """The next step: ask the source of the connection which job it comes from."""


@record
class AwaitStart:
    """The next step: wait until the user's job has started here, as long as `prolog_wait=` says."""


@record
class AwaitStep:
    """The next step: give the slurmstepd of this job, which has not answered yet, more time. No other job will do."""

    job_id: int


@record
class HoldManager:
    """The next step: end the user's systemd manager, or confine it, as `user_manager=` says."""


@record
class Adopt:
    """The next step: adopt into this job. `chosen` is one of `CHOICES`: how it was picked."""

    job_id: int
    chosen: Chosen


@record
class Verdict:
    """The end of a decision: `action` is `allow`, `deny` or `ignore`; `job_id` is 0 if the login is in no job."""

    action: Action
    reason: ReasonCode
    job_id: int = 0
    chosen: Chosen = ""


@record
class Reason:
    """One reason code: what it means, what the user is told on refusal, and how loud the log is.

    `security`: a user may have tried to get what belongs to another; the log and the audit stream mark it as such.
    """

    code: ReasonCode
    meaning: str
    user_text: str = ""
    level: str = "info"
    security: bool = False


def _table(*reasons: Reason) -> dict[str, Reason]:
    return {reason.code: reason for reason in reasons}


ADMIN = "Please tell your administrator."

REASONS = _table(
    Reason("adopted", "The login is in the job; the kernel confirms it."),
    Reason(
        "adopt-deferred",
        "keyboard-interactive: sshd still waits for the client, so the session phase puts the login into the job.",
    ),
    Reason("would-adopt", "enforce=no: the login would have been put into this job. Nothing was done."),
    Reason("session-verified", "The session is in the job that the account phase chose; the kernel confirms it."),
    Reason(
        "session-readopted",
        "Something (pam_systemd, pam_cgfs, pam_cgroup, a keyboard-interactive login) left the session outside; it is "
        "in now.",
        level="notice",
    ),
    Reason("session-not-ours", "The user has no job here; another module of the account stack let the login in."),
    Reason(
        "session-exempt",
        "Our account line was jumped over, refused this login or exempted it: whoever let it in is to judge it.",
    ),
    Reason("exempt", "`allow_users=` or `allow_groups=` of the PAM line names the user: neither adopted nor refused."),
    Reason("other-service", "The PAM line is not for this service (`service=`), and says so at log_level=verbose."),
    Reason("session-closed", "The session has ended."),
    Reason("root", "uid 0 is never refused."),
    Reason("no-job", "The user has no job on this node.", "you have no active jobs on this node"),
    Reason(
        "job-ending",
        "The user's only job here is just ending, or ended while the login was under way.",
        "your job on this node is just ending",
    ),
    Reason(
        "job-starting",
        "The user's only job here was not ready for logins in time: its prolog is still running.",
        "your job on this node is still starting (prolog); please try again in a moment",
    ),
    Reason(
        "job-suspended",
        "The user's jobs here are suspended (scontrol suspend, gang scheduling): a login would stop with them.",
        "your job on this node is suspended; you can log in again when it runs",
    ),
    Reason(
        "spool-dir-missing",
        "SlurmdSpoolDir does not exist: slurmd has never run here, so there is no job.",
        "Slurm has no jobs on this node (slurmd's spool directory is missing)",
        "warning",
    ),
    Reason(
        "steps-unresponsive",
        "No job of the user was found, and at least one slurmstepd did not answer, so there may be one.",
        f"no active job of yours could be found on this node, and a slurmstepd does not answer. {ADMIN}",
        "warning",
    ),
    Reason(
        "unknown-denied",
        "Several jobs, caller ID does not name one, and action_unknown=deny.",
        "you have several jobs on this node, and the one you come from could not be determined",
    ),
    Reason(
        "unknown-allowed",
        "Several jobs, caller ID does not name one, and action_unknown=allow: the login is in no job.",
        level="warning",
    ),
    Reason(
        "adopt-failed",
        "The login could not be put into any job of the user.",
        f"your login could not be put into your job. {ADMIN}",
        "err",
    ),
    Reason(
        "adopt-failed-allowed",
        "The login could not be put into any job, and action_adopt_failure=allow lets it in outside of all jobs.",
        level="err",
    ),
    Reason(
        "user-manager-failed",
        "The user's systemd manager could not be ended (user_manager=refuse) or confined (user_manager=confine).",
        f"your systemd user manager could not be held in check on this node. {ADMIN}",
        "err",
    ),
    Reason(
        "slurm-conf-missing",
        "No slurm.conf was found.",
        f"Slurm is not set up on this node (no slurm.conf). {ADMIN}",
        "err",
    ),
    Reason(
        "slurm-conf-lost",
        "slurmd runs on this node, but the slurm.conf that it uses, or a file which that includes, is not there.",
        f"Slurm runs on this node, but its configuration could not be found. {ADMIN}",
        "err",
    ),
    Reason(
        "slurm-conf-unreadable",
        "slurm.conf or a file it includes could not be read.",
        f"Slurm's configuration on this node could not be read. {ADMIN}",
        "err",
    ),
    Reason(
        "slurm-conf-untrusted",
        "slurm.conf, a file it includes, or a folder on the way may be written by others than root and SlurmUser.",
        f"Slurm's configuration on this node is not safe to use. {ADMIN}",
        "err",
    ),
    Reason(
        "slurm-conf-malformed",
        "slurm.conf is malformed where it matters.",
        f"Slurm's configuration on this node could not be understood. {ADMIN}",
        "err",
    ),
    Reason(
        "spool-dir-untrusted",
        "SlurmdSpoolDir is no directory, or may be written by somebody else than root, SlurmdUser or SlurmUser.",
        f"Slurm's spool directory on this node is not safe to use. {ADMIN}",
        "err",
    ),
    Reason(
        "spool-dir-unreadable",
        "SlurmdSpoolDir exists but could not be read.",
        f"Slurm's spool directory on this node could not be read. {ADMIN}",
        "err",
    ),
    Reason(
        "internal-error",
        "A fault in slurm-adopt itself; the log names it.",
        f"this node could not check your Slurm jobs. {ADMIN}",
        "err",
    ),
    Reason(
        "deadline",
        "The login's time was up.",
        f"Slurm did not answer in time on this node. {ADMIN}",
        "err",
    ),
    # --- why a single adoption failed (they stand in `Attempt.failure`, and in the log as detail) ---
    Reason(STEP_GONE, "The step's socket is stale or gone."),
    Reason(STEP_ENDING, "The step is ending."),
    Reason(
        STEP_SUSPENDED,
        "The step was suspended while it adopted; the login's processes were taken out again.",
        level="notice",
    ),
    Reason(STEP_SILENT, "slurmstepd did not answer in time."),
    Reason(STEP_CLOSED, "slurmstepd closed the connection half-way."),
    Reason(STEP_MALFORMED, "slurmstepd's answer was malformed."),
    Reason(
        STEP_UNTRUSTED,
        "The socket is not root's, or its process is not the slurmstepd it says it is.",
        level="err",
        security=True,
    ),
    Reason("step-elsewhere", "slurmstepd is in another pid namespace than the process that asks it.", level="err"),
    Reason("step-foreign", "The step belongs to another user.", level="err", security=True),
    Reason("adopt-refused", "slurmstepd answered that it could not add the process.", level="err"),
    Reason("adopt-unconfirmed", "slurmstepd said yes, but the kernel shows the process outside the step.", level="err"),
    Reason(
        "step-untracked",
        "This cluster's ProctrackType keeps no cgroup for a job (proctrack/linuxproc, proctrack/pgid): nothing can "
        "hold a login to a job.",
        level="err",
    ),
    Reason("process-changed", "The process to adopt ended or was replaced while it was adopted.", level="err"),
    Reason("namespace-failed", "The job's namespaces could not be received.", level="err"),
    Reason(
        "namespace-deferred",
        "The job has namespaces, but this process is not the one that lives on, and no session line joins them later.",
        level="err",
    ),
    Reason("service-busy", "The resident service has no room left; the one-shot helper decides."),
    Reason(
        "session-escapes",
        "pam_systemd or pam_cgfs would move the session out of the job, and no binding session line of this module "
        "comes after it.",
        level="err",
    ),
    Reason(
        "session-uncertain",
        "Whether pam_systemd or pam_cgroup will move the session out of the job cannot be told from the PAM files: a "
        "session line of this module, last in the stack and required, settles it.",
        level="err",
    ),
    # --- what the module says on its own, when there is no answer to carry out ---
    Reason("helper-unreachable", "Neither the service nor the helper could be started or reached.", level="err"),
    Reason("helper-untrusted", "The socket's owner or the helper's file is not root's.", level="err"),
    Reason("helper-bad-reply", "The answer was malformed.", level="err"),
    Reason("helper-timeout", "No answer within timeout=.", level="err"),
    Reason("user-unknown", "PAM has no user name, or the name is not known to this node.", level="err"),
    Reason("request-too-large", "The request does not fit a packet.", level="err"),
    Reason("join-failed", "The kernel refused to join the job's namespaces.", level="err"),
    # --- what users ask for (slurm-adopt jobs, use, move) ---
    Reason("user-jobs", "A user's jobs on this node were listed."),
    Reason(
        "user-no-such-job",
        "The job is not one of this user's on this node.",
        "you have no such job on this node (slurm-adopt jobs lists them)",
    ),
    Reason("user-job-not-running", "The job is starting or ending.", "that job is just starting or ending"),
    Reason("user-preference-set", "A user has chosen a job for the next logins."),
    Reason("user-preference-cleared", "A user has taken a preference back.", "logins go where they went before"),
    Reason("user-preference-failed", "The preference could not be stored or removed.", level="err"),
    Reason("user-moved", "A login, with all it has spawned, is in another job of its user; the kernel confirms it."),
    Reason(
        "user-not-a-login",
        "The process that asks is in no ssh login that was put into a job here.",
        "this is not an ssh login in one of your jobs: there is nothing to move",
    ),
    Reason(
        "user-move-off",
        "The site does not let users move logins (user_move=no).",
        "moving logins is switched off on this node (user_move=yes on the PAM line switches it on)",
    ),
    Reason(
        "user-move-in-the-way",
        "The login has memory, devices or namespaces that would stay with the job of before.",
        "this login cannot be moved as it is",
    ),
    Reason(
        "user-move-namespaces",
        "The job has namespaces of its own, and only a new login can enter them.",
        "that job has a /tmp or other namespaces of its own, which only a new login can enter",
    ),
    Reason(
        "user-move-incomplete",
        "Part of a login is in the other job, part is not.",
        "not everything of this login could be moved",
        "warning",
    ),
    Reason("user-move-failed", "The login could not be moved.", f"this login could not be moved. {ADMIN}", "err"),
    Reason("user-busy", "The user asks too often, or too many ask at once.", "too many requests; please wait a moment"),
    Reason("user-bad-request", "The request was malformed or did not come.", "the request was malformed"),
    Reason("user-timeout", "The request could not be answered in time.", "there was no answer in time", "warning"),
    # --- caller ID ---
    Reason("caller-foreign", "Caller ID named a job that is not the user's.", level="warning", security=True),
    Reason("caller-not-a-node", "The connection comes from an address that is no configured node's."),
    Reason("caller-unreachable", "slurmd of the source node could not be reached."),
    Reason("caller-silent", "slurmd of the source node did not answer in time."),
    Reason("caller-skipped", "slurmd of the source node did not answer a moment ago, and is not asked for a while."),
    Reason("caller-refused", "slurmd of the source node refused the question, or closed the connection."),
    Reason("caller-malformed", "The answer from the source node was malformed.", level="warning", security=True),
    Reason("caller-untrusted", "The answer from the source node is not authentic.", level="warning", security=True),
    Reason(
        "caller-no-credential", "munged, or auth/slurm's key or socket, did not work on this node.", level="warning"
    ),
)
