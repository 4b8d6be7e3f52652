# SPDX-License-Identifier: Apache-2.0
"""The PAM stacks of every service that a line of ours is in, and of sshd.

Rules of this file:
1. What a stack consists of, and which session line holds, says `system.host.pam_stack`; here is what that means.
2. A line that lets some people in ahead of ours (an admin group) is the site's wish; one that ends the stack for
   everybody is a fault.
"""

from __future__ import annotations

from ...options.parse import parse_options
from ...record import replace
from ...system.host.pam_outlook import CGROUP_MODULES, SCOPE_MODULES, is_there, session_outlook
from ...system.host.pam_stack import DIRECTORIES, MODULE, OTHER
from ...system.host.pam_walk import CODES, LEAVES, actions_of
from .finding import ERROR, WARNING, Finding
from .node import KINDS, OUR_NAME, is_binding
from .pam_exempting import why_open
from .pam_expiry import check_expiry
from .pam_files import check_files, check_folder
from .pam_options import check_no_jobs, check_options, check_swallowed
from .pam_refusing import check_refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.host.pam_stack import PamLine
    from .node import Node, OurLine

SSHD = "sshd"
#: Of slurmstepd (UsePAM= of slurm.conf): the checks of slurm.conf say what there is to say of it.
STEPD = "slurm"
#: What its file is called by mistake.
SSH = "ssh"
#: pam_nologin(8)
NOLOGIN = ("/var/run/nologin", "/etc/nologin")
SSHD_PROGRAMS = ("/usr/sbin/sshd", "/usr/local/sbin/sshd")
#: They say yes to some people only: who is let in by them is the site's choice.
FILTERS = {"pam_access.so", "pam_listfile.so", "pam_succeed_if.so", "pam_rootok.so", "pam_wheel.so", "pam_group.so",
           "pam_exec.so", "pam_script.so", "pam_time.so", "pam_deny.so", "pam_slurm.so", "pam_usertype.so"}  # fmt: skip
#: The distribution's own, and not a choice of the site: a new line of ours goes before what brings it in.
DISTRIBUTIONS = {"pam_usertype.so"}
#: They may stand after the session line: nothing of a job's is undone by them.
HARMLESS = {"pam_motd.so", "pam_mail.so", "pam_lastlog.so", "pam_lastlog2.so", "pam_permit.so", "pam_echo.so",
            "pam_warn.so", "pam_umask.so", "pam_mkhomedir.so", "pam_oddjob_mkhomedir.so", "pam_tty_audit.so",
            "pam_unix.so", "pam_reauthorize.so"}  # fmt: skip
MOVERS = (*SCOPE_MODULES, *CGROUP_MODULES)
#: In the names of those that give the session another root: what is behind them reaches nothing of the node's.
JAILERS = ("chroot", "jail")
#: Files that a tool writes anew: (what their names or texts show, which tool, what to do instead).
GENERATED = (
    ("common-", "pam-auth-update", "put the line into /etc/pam.d/sshd itself"),
    ("system-auth", "authselect", "put the line into /etc/pam.d/sshd itself, or into a custom authselect profile"),
    ("password-auth", "authselect", "put the line into /etc/pam.d/sshd itself, or into a custom authselect profile"),
    ("postlogin", "authselect", "put the line into /etc/pam.d/sshd itself"),
)
OPEN_MENDS = {
    "pam_access.so": "- : ALL : ALL    # the last line of access.conf",
    "pam_listfile.so": "make {0} an allow list: sense=allow onerr=fail",
}
STRICT_ACCOUNT = "account  required  pam_slurm_adopt.so profile=strict"
STRICT_SESSION = "session  required  pam_slurm_adopt.so profile=strict"


def check_pam(node: Node) -> Iterator[Finding]:
    """All services that matter; what is seen in a file that several services include is said once."""
    lines = {kind: node.our_lines(kind) for kind in KINDS}
    # a line in a file that many services include concerns those that it works in
    # and of a file that is there to be included, those that include it
    used = {line.line.origin for kind in lines.values() for line in kind if line.works}
    services = {
        line.service
        for kind in lines.values()
        for line in kind
        if line.works or (_is_own(line) and line.line.origin not in used)
    }
    for folder in DIRECTORIES:
        yield from check_folder(node, folder)
    if not _has_file(node, SSHD):
        yield from check_other(node)
    said = set()
    parts = tuple(begins for begins, _, _ in GENERATED)  # files that services include, and none themselves
    named = {name for name in node.services() if not name.startswith(parts) and _has_file(node, name)}
    named = {name for name in named if not _is_copy(name, named) and name != STEPD}
    for service in sorted({*services, SSHD} & named):
        account, session = ([line for line in lines[kind] if line.service == service] for kind in KINDS)
        for finding in check_stacks(node, service, account, session):
            if (finding.code, finding.seen) not in said:
                said.add((finding.code, finding.seen))
                yield _naming(node, finding)


def _naming(node: Node, finding: Finding) -> Finding:
    """The finding with a mend that names our module as it is called here."""
    other = node.other_name()
    return replace(finding, mend=finding.mend.replace(f" {MODULE} ", f" {other} ")) if other else finding


def check_other(node: Node) -> Iterator[Finding]:
    """An sshd without a file of its own in PAM's folders: libpam takes the one for all others."""
    if any(map(node.exists, SSHD_PROGRAMS)) and not any(line.works for line in node.our_lines("account", SSHD)):
        yield Finding(
            "pam-no-line",
            ERROR,
            f"there is no file /etc/pam.d/{SSHD}: libpam takes /etc/pam.d/other for it",
            "logins are not asked for a job: whoever has an account gets in, if that file lets in anybody",
            "put the file back: it belongs to the package of openssh-server; then slurm-adopt enable",
        )


def check_stacks(node: Node, service: str, account: list[OurLine], session: list[OurLine]) -> Iterator[Finding]:
    """One service."""
    broken = list(check_files(node, service))
    yield from broken
    if any(finding.severity == ERROR for finding in broken):
        return  # what else is said about a stack that libpam does not load would be a guess
    yield from check_nologin(node, service)
    misplaced = [*check_kinds(node, service), *check_swallowed([*account, *session])]
    yield from misplaced
    if misplaced and not (account and session):
        return
    found = list(check_account(node, service, account))
    last = next((line for line in reversed(account) if line.works), None)
    yield from found or check_expiry(node, account, session, _fallback(last.stack, last.index) if last else None)
    yield from check_refusing(node, account)
    yield from check_session(node, service, account, session)
    acting = [line for line in account if line.works and line.options.enforce != "no"]
    yield from check_others(node, service, bool(acting))
    yield from check_options(account, session)
    for one in (account, session):
        generated = list(check_generated(node, one))
        yield from generated or check_twice(one)  # without the line that a tool has written there is one less


def check_nologin(node: Node, service: str) -> Iterator[Finding]:
    """A file that keeps everybody out: a maintenance that is over, or a boot that has not come to its end."""
    there = next((path for path in NOLOGIN if node.exists(path)), "")
    for line in node.stack(service, "account") if there and service == SSHD else ():
        if _base(line) == "pam_nologin.so":
            yield Finding(
                "pam-nologin",
                WARNING,
                f"{there} is there, and {line.origin} is pam_nologin",
                "everybody but root is refused, with a job or without; slurm-adopt is not the one who does it",
                f"rm {there}    # once the node may be used again",
            )
            return


def check_kinds(node: Node, service: str) -> Iterator[Finding]:
    """A line of ours of a kind that the module has nothing for."""
    for kind in ("auth", "password"):
        for line in node.our_lines(kind, service):
            yield Finding(
                "pam-wrong-kind",
                ERROR,
                f"{line.line.origin} has slurm-adopt's module in a line of the kind {kind}",
                "the module has account and session only: libpam counts the line as one that fails",
                f"remove {line.line.origin}"
                if node.our_lines("account", service)
                else f"{STRICT_ACCOUNT}    # instead of {line.line.origin}",
            )


def check_account(node: Node, service: str, lines: list[OurLine]) -> Iterator[Finding]:
    """Whether our line is asked for everybody, and whether its no counts."""
    if not lines:
        if service == SSHD:
            original = find_original(node, service)
            elsewhere = next((line for line in node.our_lines("account", SSH) if _is_own(line, SSH)), None)
            yield Finding(
                "pam-no-line",
                ERROR,
                f"/etc/pam.d/{service} has no account line of slurm-adopt"
                + (f": {original.origin} loads {node.module_path(original.module)}, Slurm's own" if original else "")
                + (f"; {elsewhere.line.origin} has one, and no sshd asks the service {SSH}" if elsewhere else ""),
                "logins are not asked for a job: whoever has an account gets in"
                if original is None
                else "Slurm's own module decides: nothing of slurm-adopt is in force",
                f"{STRICT_ACCOUNT}    # in /etc/pam.d/{service}, before what it includes"
                if original is None
                else f"{STRICT_ACCOUNT}    # instead of {original.origin}",
            )
        return
    working = [line for line in lines if line.works]
    if not working:
        line = lines[0]
        yield Finding(
            "pam-line-idle",
            ERROR if service == SSHD else WARNING,
            f"{line.line.origin} works in the service {','.join(line.options.services)} only, and stands in {service}",
            "the module leaves this service alone: the line does nothing"
            + (", and whoever has an account gets in" if service == SSHD else ""),
            "sed -i '{1}s/service=[^ \\t]*/service={2}/' {0}".format(*line.line.origin.rsplit(":", 1), service)
            if service == SSHD
            else f"remove {line.line.origin}; if {service} is to be guarded as well, add service={service} instead",
        )
        return
    line = working[-1]
    if line.options.problems:
        return  # its own finding; with a wrong option it is not known what was meant
    ending = find_ending(node, line)
    if ending is not None:
        yield Finding(
            "pam-ends-before",
            ERROR,
            f"{ending.origin} ({ending.control} {ending.module}) ends the account stack before {line.line.origin}",
            "slurm-adopt is not asked about users of /etc/passwd: they get in without a job"
            if _base(ending) == "pam_localuser.so"
            else "slurm-adopt is never asked, and whoever has an account gets in",
            f"move {line.line.origin} above {ending.origin}, or write `required` there",
        )
        return
    for other in (*_exempting(node, line), _fallback(line.stack, line.index)):
        why = why_open(node, other, service) if other is not None else ""
        if other is not None and why:
            yield _open(other, why)
            return
    if not _refuses(line.stack, line.index):
        yield Finding(
            "pam-not-binding",
            ERROR,
            f"{line.line.origin} has the control {line.line.control}: its refusal does not refuse the login",
            "users without a job get in",
            f"{STRICT_ACCOUNT}    # instead of {line.line.origin}",
        )
        return
    yield from check_no_jobs(line, FILTERS)


def _open(line: PamLine, why: str) -> Finding:
    return Finding(
        "pam-exempts-everybody",
        ERROR,
        f"{line.origin} ({line.control} {line.module}) lets people in without a job: {why}",
        "users without a job get in",
        OPEN_MENDS.get(line.name, "let it ask for a group of administrators: {0}").format(line.origin),
    )


def check_session(node: Node, service: str, account: list[OurLine], session: list[OurLine]) -> Iterator[Finding]:
    """Whether the session line is there, and last."""
    if not any(line.works for line in account):
        return
    working = [line for line in session if line.works]
    if not working:
        yield Finding(
            "pam-session-missing",
            WARNING,
            f"/etc/pam.d/{service} has an account line of slurm-adopt, and no session line that works there",
            "what moves the session out of its job afterwards (pam_systemd, a second process of sshd) goes unnoticed",
            f"{STRICT_SESSION}{'' if service == SSHD else f' service={service}'}    # last in /etc/pam.d/{service}",
        )
        return
    line = working[-1]
    later = [after for after in line.stack[line.index + 1 :] if _base(after) not in HARMLESS and not _is_ours(after)]
    later = [after for after in later if is_there(after.module, node.root) and not _is_jailer(after)]
    jailer = find_jailer(node, line)
    if jailer is not None:
        yield Finding(
            "pam-session-jailed",
            ERROR,
            f"{jailer.origin} ({jailer.module}) comes before {line.line.origin}",
            "in the new root neither the service nor the helper is found: each login is refused, or not checked",
            f"move {line.line.origin} above {jailer.origin}",
        )
    mover = next((after for after in later if _base(after) in MOVERS), None)
    if mover is not None:
        yield Finding(
            "pam-session-too-early",
            ERROR,
            f"{mover.origin} ({mover.module}) comes after {line.line.origin}",
            "it moves the session out of the job once more, and nobody looks afterwards",
            f"make {line.line.origin} the last session line of /etc/pam.d/{service}",
        )
    elif later:
        yield Finding(
            "pam-session-not-last",
            WARNING,
            f"{later[0].origin} ({later[0].module}) comes after {line.line.origin}",
            "limits, variables or keys that it sets take the place of what the session has got from its job",
            f"make {line.line.origin} the last session line of /etc/pam.d/{service}",
        )
    elif session_outlook(service, lambda one: parse_options(one.args).works_in(service), root=node.root) == LEAVES:
        yield Finding(
            "pam-session-escapes",
            ERROR,
            f"{_movers(line)} moves sessions of {service}, and {line.line.origin} does not hold all of them",
            "each login is refused, or outside of its job: nothing may end the stack before the line, or jump over it",
            f"{STRICT_SESSION}    # last in /etc/pam.d/{service}, instead of {line.line.origin}",
        )
        return
    yield from check_pair(next(one for one in account if one.works), line)
    strongest = next((one for one in account if one.works and one.options.enforce == "yes"), None)
    if strongest is not None and line.options.enforce == "yes" and not is_binding(line):
        yield Finding(
            "pam-session-lenient",
            WARNING,
            f"{line.line.origin} has the control {line.line.control}: its refusal does not refuse the session",
            "a session that something has moved out of its job is let in there",
            f"{STRICT_SESSION}    # instead of {line.line.origin}",
        )
    if strongest is not None and line.options.enforce != "yes":
        yield Finding(
            "pam-session-lenient",
            WARNING,
            f"{line.line.origin} has enforce={line.options.enforce}; the account line {strongest.line.origin} enforces",
            "a session that something has moved out of its job is let in there",
            f"take enforce={line.options.enforce} out of {line.line.origin}",
        )
    first = next(one for one in account if one.works)
    if strongest is None and line.options.enforce == "yes":
        yield Finding(
            "pam-lines-differ",
            WARNING,
            f"{first.line.origin} has enforce={first.options.enforce}, and {line.line.origin} has not",
            "the session line acts where the account line only looks on: it puts users with a job into it",
            f"add enforce={first.options.enforce} to {line.line.origin}",
        )


def _movers(line: OurLine) -> str:
    """The modules of a line's stack that move sessions, by their names."""
    return " and ".join(dict.fromkeys(_base(one)[:-3] for one in line.stack if _base(one) in MOVERS))


def check_pair(account: OurLine, session: OurLine) -> Iterator[Finding]:
    """What both lines have to say alike, as both phases look for the same job."""
    for name in ("slurm_conf", "nodename"):
        words = [f"{name}={value}" if value else f"no {name}=" for value in
                 (getattr(account.options, name), getattr(session.options, name))]  # fmt: skip
        if words[0] != words[1]:
            yield Finding(
                "pam-lines-differ",
                ERROR,
                f"{account.line.origin} has {words[0]}, and {session.line.origin} has {words[1]}",
                "the two phases of a login look for the job in different places: one of them refuses what the other "
                "has let in",
                f"write the same {name}= on both lines",
            )


def check_others(node: Node, service: str, acts: bool) -> Iterator[Finding]:
    """Slurm's own modules beside ours. One that only looks on (not `acts`) is meant to stand beside them."""
    if not acts:
        return
    for kind in KINDS:
        for line in node.stack(service, kind):
            if is_originals(node, line):
                yield Finding(
                    "pam-original-beside",
                    WARNING,
                    f"{line.origin} loads {line.module}, which is not slurm-adopt's",
                    "two modules adopt the same login, each by its own rules; the other one may wait for ever",
                    f"remove {line.origin}, or let slurm-adopt only look on with enforce=no",
                )
            elif kind == "account" and _base(line) == "pam_slurm.so":
                yield Finding(
                    "pam-slurm-beside",
                    WARNING,
                    f"{line.origin} is Slurm's older module pam_slurm.so",
                    "it decides logins as well, by what slurmctld says, and refuses when that does not answer",
                    f"remove {line.origin}: slurm-adopt decides the same, and puts the login into the job",
                )


def check_twice(lines: list[OurLine]) -> Iterator[Finding]:
    """The same line twice."""
    working = [line for line in lines if line.works]
    again = [
        later
        for earlier, later in zip(working, working[1:])
        if (earlier.line.args, earlier.path) == (later.line.args, later.path)
    ]
    if again:
        more = f" and {len(again) - 1} more" if again[1:] else ""
        yield Finding(
            "pam-twice",
            WARNING,
            f"{again[0].line.origin}{more} is the {again[0].line.kind} line before it once more",
            "each login is decided once more for each of them, and takes longer",
            "\n".join(f"remove {line.line.origin}" for line in reversed(again)),
        )


def check_generated(node: Node, lines: list[OurLine]) -> Iterator[Finding]:
    """Our line in a file that a tool of the distribution writes."""
    for line in lines:
        path = line.line.origin.rpartition(":")[0][len(node.root) :]
        name = path.rpartition("/")[2]
        for begins, tool, instead in GENERATED:
            if name.startswith(begins) and "pam_slurm_adopt" in (node.text(path) or ""):
                yield Finding(
                    "pam-generated-file",
                    WARNING,
                    f"{line.line.origin} stands in a file that {tool} writes",
                    f"the next run of {tool} may take the line away; and it guards more services than ssh",
                    f"{instead}, and remove {line.line.origin}",
                )


# What a stack does ----------------------------------------------------------------------------------


def _has_file(node: Node, service: str) -> bool:
    """Whether libpam finds a file for the service; a link that leads nowhere is none."""
    return any(node.exists(f"{folder}/{service}") for folder in DIRECTORIES)


def _is_own(line: OurLine, service: str = "") -> bool:
    """Whether it stands in the service's own file, and not in one that it includes.

    Of files for an sshd that does not run nothing is said, and of one that runs its own check says it.
    """
    file = line.line.origin.rpartition(":")[0].rpartition("/")[2]
    return file == line.service and file != OTHER and (not file.startswith(SSH) or file in (SSHD, service))


def _is_copy(name: str, services: set[str]) -> bool:
    """Whether a file is what somebody has kept of another one: `sshd.bak`, `sshd.rpmsave`, `sshd.2024-01-01`."""
    before, dot, _ = name.partition(".")
    return bool(dot) and before in services


def _base(line: PamLine) -> str:
    return line.module.rpartition("/")[2]


def _is_jailer(line: PamLine) -> bool:
    return any(word in _base(line) for word in JAILERS)


def _is_ours(line: PamLine) -> bool:
    return _base(line).startswith(OUR_NAME)


def _ends(line: PamLine) -> bool:
    """Whether the stack is over with success when the module says yes."""
    return _action(line, "success") in ("done", "die")


def _action(line: PamLine, code: str) -> str:
    """What the line's control does with a return code of its module."""
    return actions_of(line.control)[0][CODES.index(code)]


def _ends_for_all(node: Node, line: PamLine, filters: set[str]) -> bool:
    """Whether nearly everybody gets past the stack with this line: not in a substack of its own, and no filter."""
    if line.optional and not node.module_path(line.module):
        return False
    return _ends(line) and not line.level and _base(line) not in filters and not _is_ours(line)


def is_originals(node: Node, line: PamLine) -> bool:
    """Whether a line of our name loads another module: one with a path, or where ours has another name."""
    path = node.module_path(line.module)
    if not _is_ours(line) or not path or node.is_ours(path):
        return False
    return "/" in line.module or bool(node.other_name())


def find_original(node: Node, service: str) -> PamLine | None:
    """The account line of Slurm's own module: with its path, or where ours stands beside it under another name."""
    return next((line for line in node.stack(service, "account") if is_originals(node, line)), None)


def find_ending(node: Node, line: OurLine, is_new: bool = False) -> PamLine | None:
    """A line ahead of ours after which, for nearly everybody, ours is not asked any more.

    `is_new`: ours is looked for a place, and none behind what the distribution lets system accounts in with.
    """
    filters = FILTERS - DISTRIBUTIONS if is_new else FILTERS
    ending = next((before for before in line.stack[: line.index] if _ends_for_all(node, before, filters)), None)
    return ending if ending is not None else _jump_over(line.stack, line.index)


def find_jailer(node: Node, line: OurLine) -> PamLine | None:
    """A line ahead of ours that gives the session another root."""
    before = line.stack[: line.index]
    return next((one for one in before if _is_jailer(one) and is_there(one.module, node.root)), None)


def find_exemption(node: Node, account: list[OurLine]) -> PamLine | None:
    """A line ahead of ours that lets some people in without us."""
    line = next((line for line in reversed(account) if line.works), None)
    for before in line.stack[: line.index] if line is not None else ():
        if _base(before) in FILTERS and not before.level and _ends(before) and node.module_path(before.module):
            return before
    return None


def _exempting(node: Node, line: OurLine) -> list[PamLine]:
    """The filters ahead of ours whose yes ends the stack, or jumps over ours."""
    found = []
    for place, before in enumerate(line.stack[: line.index]):
        action = _action(before, "success")
        skips = action.isdigit() and place + int(action) >= line.index
        passes = not before.level and (_ends(before) or skips)
        if passes and _base(before) in FILTERS and node.module_path(before.module):
            found.append(before)
    return found


def _jump_over(stack: tuple[PamLine, ...], index: int) -> PamLine | None:
    """A line whose yes jumps over ours, and that is no filter."""
    for place, line in enumerate(stack[:index]):
        action = _action(line, "success")
        if action.isdigit() and _base(line) not in FILTERS and line.level == stack[index].level == 0:
            passed = stack[place + 1 : place + 1 + int(action)]
            if not any(one.level for one in passed) and place + int(action) >= index:
                return line
    return None


def _refuses(stack: tuple[PamLine, ...], index: int) -> bool:
    """Whether a refusal by our line refuses the login: by itself, or by what is asked after it."""
    return _action(stack[index], "perm_denied") in ("bad", "die") or _fallback(stack, index) is not None


def _fallback(stack: tuple[PamLine, ...], index: int) -> PamLine | None:
    """Who decides after our line's no, if that refuses nobody.

    `account sufficient` ours, then `account required pam_access.so`: the way to let an admin group in.
    """
    if _action(stack[index], "perm_denied") in ("bad", "die"):
        return None
    return next((later for later in stack[index + 1 :] if _base(later) in FILTERS), None)
