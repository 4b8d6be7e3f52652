# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt explain`: what a login would get now, and why; or why a recorded login got what it got.

Rules of this file:
1. It touches nothing: nobody is adopted, no other node is asked, no service remembers anything.
2. The facts are gathered by the code that gathers them for logins, and the decision is `policy`'s.
3. What only a real login can find out (caller ID, whether a job starts in time, whether slurmstepd adopts the process)
   is named, together with what it would change.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
import time

from ..login.facts import gather
from ..login.recorded import decode_facts
from ..login.reply import enforced, refusal, result_of
from ..login.state import STRICT, Login
from ..login.steps import FreshLookup
from ..model import REASONS, RUNNING, Adopt, AskCaller, AwaitStart, AwaitStep, CallerFact, Verdict
from ..options.parse import parse_options
from ..places import HELPER
from ..policy import decide
from ..record import record, replace
from ..system.kernel.procfs import read_process
from ..system.rpc.peers import find_nodes_of_peer
from ..system.tasks.task import MS, DeadlineExceeded
from ..system.tasks.task import run as run_task
from ..wire.login_exchange import LoginRequest
from ..words import printable
from .doctor.node import Node, is_roots_alone
from .doctor.pam import find_ending, find_exemption
from .doctor.service import ask
from .history import decode_lines, read_lines
from .main import die
from .narrate import Step, tell_adoption, tell_caller, tell_decision, tell_facts, tell_verdict, tell_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..model import ReasonCode
    from ..options.parse import Options
    from ..system.kernel.procfs import Process
    from .doctor.node import OurLine

PEER_NS = 1000 * MS


@record
class Explanation:
    """`result` is the PAM code's name: success, ignore, perm_denied; `verdict` None if slurm-adopt is not asked.

    `unless`: what would make another outcome of it.
    """

    user: str
    service: str
    source: str
    steps: tuple[Step, ...]
    verdict: Verdict | None
    result: str
    enforce: str
    text: str
    unless: tuple[str, ...] = ()


class Looker(Login):
    """A login that nobody makes: it has no processes, and none are looked for."""

    def find_processes(self) -> tuple[Process, ...]:
        return ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("user", nargs="?", metavar="USER", help="whose login")
    parser.add_argument("--from", dest="source", metavar="ADDRESS", default="", help="where the login would come from")
    parser.add_argument("--service", default="sshd", help="the PAM service (sshd)")
    parser.add_argument(
        "--replay",
        metavar="FILE",
        nargs="?",
        const="",
        help="decide the recorded logins (of USER) of this audit file, or of the journal, once more",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run_replay(args: argparse.Namespace) -> int:
    """Each recorded login, and whether the decision is the same today; 1 if one is not."""
    same = True
    events = [event for event in decode_lines(read_lines(args.replay)) if event["event"] == "login"]
    for event in events:
        if args.user not in (None, event.get("user"), str(event.get("uid"))):
            continue
        try:
            steps, verdict = replay(event)
        except ValueError as error:
            print(f"{event['time']} {event.get('user')}: cannot be replayed: {error}", file=sys.stderr)
            same = False
            continue
        recorded = (event.get("verdict"), event.get("reason"), event.get("job") or 0)
        agrees = verdict is not None and (verdict.action, verdict.reason, verdict.job_id) == recorded
        same = same and agrees
        if args.json:
            shown = {"event": event, "steps": [step.__dict__ for step in steps], "agrees": agrees}
            print(json.dumps(shown, ensure_ascii=True))
            continue
        print(f"{event['time']}  {event.get('user')}  from {event.get('from') or '-'}  ({event['phase']})")
        for step in steps:
            print(_line(step))
        if not agrees:
            print(f"  differs: recorded was {recorded[0]} {recorded[1]}")
    return 0 if same else 1


def replay(event: dict[str, Any]) -> tuple[tuple[Step, ...], Verdict | None]:
    """The steps and the verdict of a recorded login; `ValueError` if its facts are not there.

    No verdict: the decision goes another way today, and the facts for it were not gathered then.
    """
    facts = decode_facts(event)
    options = parse_options(map(str, event.get("options", ())))
    if event.get("strict"):
        options = replace(options, **STRICT)
    steps, verdict = tell_decision(facts, options)
    return (*tell_facts(facts), *steps), verdict


def run(args: argparse.Namespace) -> int:
    """Print the explanation; 0 whatever the outcome is."""
    if args.replay is not None:
        return run_replay(args)
    if not args.user:
        die("whose login?", "slurm-adopt explain USER, or slurm-adopt explain --replay")
    if os.geteuid() != 0:
        die("explain must run as root", "it asks slurmstepd what only root may ask: sudo slurm-adopt explain USER")
    said = explain(args.user, args.source, args.service)
    if args.json:
        print(json.dumps(as_json(said), ensure_ascii=True, indent=1))
        return 0
    for step in said.steps:
        print(_line(step))
    for condition in said.unless:
        print(f"  unless    {condition}")
    outcome = {"success": "is let in", "ignore": "is left to the other PAM modules", "perm_denied": "is refused"}
    print(f"=> {said.user} {outcome[said.result]}{_into(said)}")
    if said.text:
        print(f"   and reads: {said.text}")
    return 0


def as_json(said: Explanation) -> dict[str, Any]:
    """Stable names."""
    verdict = said.verdict
    return {
        "user": said.user,
        "service": said.service,
        "from": said.source or None,
        "steps": [step.__dict__ for step in said.steps],
        "verdict": verdict.action if verdict else None,
        "reason": verdict.reason if verdict else None,
        "job": (verdict.job_id or None) if verdict else None,
        "chosen": (verdict.chosen or None) if verdict else None,
        "enforce": said.enforce,
        "result": said.result,
        "text": said.text,
        "unless": list(said.unless),
    }


def _into(said: Explanation) -> str:
    if said.verdict is None or not said.verdict.job_id:
        return "" if said.result != "success" else ", into no job"
    if said.enforce == "no":
        return f" (enforce=no: without it, into job {said.verdict.job_id})"
    return f", into job {said.verdict.job_id}"


def _line(step: Step) -> str:
    return f"  {step.step:<9} {printable(step.fact)}"


# A login that nobody makes --------------------------------------------------------------------------


def explain(user: str, source: str = "", service: str = "sshd") -> Explanation:
    """What a login of this user would get now."""
    steps: list[Step] = []

    def end(verdict: Verdict | None, options: Options | None = None, unless: tuple[str, ...] = ()) -> Explanation:
        enforce = options.enforce if options is not None else "yes"
        result = enforced(result_of(verdict.action, "account"), enforce) if verdict is not None else "ignore"
        hint = options.hint if options is not None else ""
        text = refusal(verdict.reason, hint) if verdict is not None and result == "perm_denied" else ""
        return Explanation(user, service, source, tuple(steps), verdict, result, enforce, text, unless)

    line = _find_line(service, steps)
    if line is None:
        return end(None)
    options = line.options
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        steps.append(Step("user", f"this node knows no user {user}"))
        verdict = Verdict("deny", "user-unknown")
        steps.append(tell_verdict(verdict))
        return replace(end(verdict, options), text="")
    steps.append(Step("user", f"{user} is uid {account.pw_uid}"))
    if account.pw_uid == 0 and options.ignore_root:
        steps.append(Step("root", "uid 0 is let past before anything else (ignore_root=1)"))
        return end(Verdict("ignore", "root"), options)
    broken = _find_broken_helper(options)
    if broken:
        steps.append(Step("helper", f"{HELPER}: {REASONS[broken].meaning}"))
        verdict = Verdict("ignore" if account.pw_uid == 0 else options.action_generic_failure, broken)
        steps.append(tell_verdict(verdict))
        return end(verdict, options)
    own = read_process(os.getpid())
    assert own is not None, "this process is there"
    deadline_ns = time.monotonic_ns() + int(options.timeout_s * 1e9)
    request = LoginRequest("account", deadline_ns, service, user, account.pw_uid, source, args=line.line.args)
    login = Looker(request, own, FreshLookup())
    try:
        return _explain_facts(login, options, steps, end)
    finally:
        login.found.close()


def _explain_facts(login: Looker, options: Options, steps: list[Step], end: Any) -> Explanation:
    detail = _gather(login)
    facts = login.facts
    if login.conf is not None:
        steps.append(Step("slurm", f"{login.conf.path}, SlurmdSpoolDir {login.conf.spool_dir}"))
    if detail:
        steps.append(Step("slurm", detail))
    steps += tell_facts(facts)
    unless: list[str] = []
    while True:
        decision = decide(facts, options)
        if isinstance(decision, Verdict):
            verdict = decision
            steps.append(tell_verdict(verdict))
            break
        if isinstance(decision, AskCaller):
            caller = _foresee_caller(login)
            facts = replace(facts, caller=caller)
            steps.append(tell_caller(caller))
            jobs = [str(step.job_id) for step in facts.steps if step.state == RUNNING]
            if caller.status == "unknown":
                unless.append(f"it comes from one of the user's jobs ({', '.join(jobs)}): then it goes into that one")
        elif isinstance(decision, AwaitStart):
            facts = replace(facts, waited_ms=int(options.prolog_wait_s * 1000))
            steps.append(Step("wait", f"up to {options.prolog_wait_s:g} s for the job to start (prolog_wait=)"))
            unless.append("the job has started by then: then it goes into it")
        elif isinstance(decision, AwaitStep):
            facts = replace(facts, awaited_job=decision.job_id)
            steps.append(tell_wait(decision))
            unless.append(f"slurmstepd of job {decision.job_id} answers by then: then it goes into that job")
        else:
            assert isinstance(decision, Adopt), "an account phase has no other step"
            steps.append(tell_adoption(decision))
            reason: ReasonCode = "would-adopt" if options.enforce == "no" else "adopted"
            verdict = Verdict("allow", reason, decision.job_id, decision.chosen)
            break
    if options.enforce != "yes":
        steps.append(Step("enforce", f"enforce={options.enforce}: {_enforce_words(options)}"))
    said: Explanation = end(verdict, options, tuple(unless))
    return said


def _enforce_words(options: Options) -> str:
    return "nothing is changed, the verdict is only logged" if options.enforce == "no" else "nobody is refused"


def _gather(login: Looker) -> str:
    """The facts, as a login gathers them; the result is a detail."""
    try:
        return run_task(gather(login))
    except DeadlineExceeded:
        login.facts = replace(login.facts, fault="deadline")
        return ""
    except Exception as error:  # as in a login: one more reason code
        login.facts = replace(login.facts, fault="internal-error")
        return f"{type(error).__name__}: {error}"


def _find_line(service: str, steps: list[Step]) -> OurLine | None:
    """The account line that decides, or None if slurm-adopt is not asked; and what comes before it."""
    node = Node()
    lines = node.our_lines("account", service)
    working = [line for line in lines if line.works]
    if not working:
        what = (
            f"{lines[0].line.origin} works in the service {','.join(lines[0].options.services)} only"
            if lines
            else "there is none"
        )
        steps.append(Step("PAM", f"/etc/pam.d/{service} has no account line of slurm-adopt that works there: {what}"))
        return None
    line = next((line for line in reversed(working) if line.options.enforce == "yes"), working[-1])
    ending = find_ending(node, line)
    if ending is not None:
        steps.append(Step("PAM", f"{ending.origin} ({ending.module}) ends the stack before {line.line.origin}"))
        return None
    exempt = find_exemption(node, working)
    if exempt is not None:
        steps.append(
            Step("PAM", f"{exempt.origin} ({exempt.module}) comes first: whom it lets in is not asked for a job")
        )
    args = " ".join(line.line.args) or "no options"
    steps.append(Step("PAM", f"{line.line.origin}: {line.line.control} {line.line.module}, {args}"))
    for problem in line.options.problems:
        steps.append(Step("PAM", problem))
    return line


def _find_broken_helper(options: Options) -> ReasonCode | None:
    """Why nobody would answer the module; None if somebody does. As the module looks at it."""
    if options.mode != "oneshot" and _service_answers():
        return None
    if options.mode == "service":
        return "helper-unreachable"
    try:
        found = os.lstat(HELPER)
    except OSError:
        return "helper-unreachable"
    if not is_roots_alone(found) or not os.path.isfile(HELPER) or os.path.islink(HELPER):
        return "helper-untrusted"
    return None if os.access(HELPER, os.X_OK) else "helper-unreachable"


def _service_answers() -> bool:
    from ..resident.run_files import ADMIN_SOCKET

    try:
        return bool(ask(ADMIN_SOCKET))
    except OSError:
        return False


def _foresee_caller(login: Looker) -> CallerFact:
    """What caller ID can find at best: an address that is no node's is known without a question."""
    source = login.facts.source
    assert login.conf is not None, "there are steps, so there is a configuration"
    if not source:
        return CallerFact("unknown", 0, "", "no --from was given")
    try:
        nodes = run_task(find_nodes_of_peer(login.conf, source, time.monotonic_ns() + PEER_NS))
    except (ValueError, DeadlineExceeded) as error:
        return CallerFact("unknown", 0, source, str(error))
    if nodes:
        return CallerFact("unknown", 0, source, f"slurmd of {nodes[0].name} would be asked")
    return CallerFact("unknown", 0, source, "no configured node's address, unless it is this machine's own")
