# SPDX-License-Identifier: Apache-2.0
"""Every sshd of the node: its effective settings, those of Match blocks among them.

Rules of this file:
1. The settings are sshd's own word (`sshd -T`, `sshd -T -C`), with the file and options that the running sshd has.
   Where a Match block asks for a port of the machine's own, sshd says nothing without one (OpenSSH 8.4 to 10.6).
2. An sshd is a process of root's that runs an sshd's program and calls itself a listener. Started with an empty
   environment it has no room for that title; then it is known that it listens, and not with which file.
"""

from __future__ import annotations

import os
import re

from ...record import record
from ...system.kernel.procfs import read_file, read_program, read_title
from ...system.tasks.child import ChildFault, run_program
from ...system.tasks.program import UntrustedProgram, resolve_program
from ...system.tasks.task import DeadlineExceeded, all_of, run
from .finding import ERROR, NOTE, WARNING, Finding
from .node import LISTENS, listening_at
from .sshd_files import check_reloaded, check_view, check_writers, config_lines, mend_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.kernel.procfs import OwnedProcess
    from ...system.tasks.task import Task
    from .node import Node, OurLine

    Settings = dict[str, str]

PROGRAMS = ("/usr/sbin/sshd", "/usr/local/sbin/sshd")
DEFAULT_CONFIG = "/etc/ssh/sshd_config"
LISTENER = "[listener]"
#: sshd's options that take a word; the others stand alone (sshd(8)).
WITH_WORD = "bCcEfghkopu"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
MATCH_CAP = 8
#: Of a connection that no Match block is about.
NO_PORT = "lport=1"
#: Match's words, and sshd's for them in a connection (sshd_config(5), sshd(8)); groups are members of theirs.
CRITERIA = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport",
            "rdomain": "rdomain"}  # fmt: skip
SPANS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "": 1}


@record
class Server:
    """One sshd: what to call it, its program, the options that its settings depend on, its file, its PAM service; and
    the process, if it runs."""

    name: str
    program: str
    options: tuple[str, ...]
    config: str
    service: str
    process: OwnedProcess | None = None


def check_sshd(node: Node) -> Iterator[Finding]:
    """All that run; the one of the distribution if none does."""
    servers = list(find_servers(node))
    if not servers:
        program = next((path for path in PROGRAMS if node.exists(path)), "")
        if not program:
            return  # a container without sshd: other services may still be guarded
        if not _somebody_listens() and not any(map(listening_at, node.roots_processes("sshd"))):
            yield Finding(
                "sshd-not-running",
                WARNING,
                "no sshd listens on this node",
                "nobody can log in, and what is said about sshd here is from its file only",
                "systemctl start sshd    # Debian: ssh",
            )
        servers = [Server(program, program, (), DEFAULT_CONFIG, "sshd")]
    for server in servers:
        yield from check_server(node, server)


def check_server(node: Node, server: Server) -> Iterator[Finding]:
    """One sshd."""
    outcomes = run(all_of([_ask(node, server, spec) for spec in ("", *_match_specs(server.config))], node.deadline_ns))
    late = next((outcome for outcome in outcomes if isinstance(outcome, DeadlineExceeded)), None)
    if late is not None:
        raise late
    answers = [outcome if isinstance(outcome, str) else "" for outcome in outcomes]
    settings = _settings(answers[0])
    yield from check_writers(node, server.config)
    if server.process is not None:
        yield from check_view(node, server.name, server.process)
    if "usepam" not in settings and "port" in settings:
        yield Finding(
            "sshd-use-pam",
            ERROR,
            f"{server.name}: {server.program} is built without PAM",
            "sshd never asks PAM: whoever has a key or a password gets in, and into no job",
            "run the sshd of the distribution, or build this one with --with-pam",
        )
        return
    if "usepam" not in settings:
        said = " ".join(answers[0].split()) or "it does not answer"
        yield Finding(
            "sshd-config-broken",
            ERROR,
            f"{server.name} -T: {said[:300]}",
            "sshd does not start with these settings again: after the next restart nobody can log in",
            f"mend {server.config}, until `{server.program} -t -f {server.config}` says nothing",
        )
        return
    if settings["usepam"] != "yes":
        yield Finding(
            "sshd-use-pam",
            ERROR,
            f"{server.name}: UsePAM is {settings['usepam']}",
            "sshd never asks PAM: whoever has a key or a password gets in, and into no job",
            mend_setting(server.config, server.options, "UsePAM", "yes"),
        )
        return
    service = settings.get("pamservicename", server.service)
    yield from check_reloaded(server.name, server.config, settings.get("pidfile", ""))
    matched = [settings, *(_settings(answer) for answer in answers[1:])]
    for name in dict.fromkeys(one.get("pamservicename", server.service) for one in matched if one):
        yield from check_pam_service(node, server, name, "" if name == service else "in a Match block ")
    yield from check_times(node, server, service, settings)
    if any(one.get("kbdinteractiveauthentication", "") == "yes" for one in matched):
        yield from check_user_environment(node, server, service)


def check_pam_service(node: Node, server: Server, service: str, where: str = "") -> Iterator[Finding]:
    """Whether the PAM service that this sshd uses has a line of ours that works there."""
    lines = node.our_lines("account", service)
    if any(line.works for line in lines) or service == "sshd":
        return  # whatever is wrong with the service sshd, the PAM checks say
    mend = f"slurm-adopt enable --service {service}    # then slurm-adopt confirm, from a new login through this sshd"
    yield Finding(
        "sshd-pam-service",
        ERROR,
        f"{server.name} uses {where}the PAM service {service}, in which no line of slurm-adopt works",
        "logins through this sshd are not asked for a job, and go into none",
        mend,
    )


def check_times(node: Node, server: Server, service: str, settings: Settings) -> Iterator[Finding]:
    """LoginGraceTime, PerSourcePenalties, MaxStartups."""
    timeout_s = max([line.options.timeout_s for line in node.our_lines("account", service)], default=0)
    grace_s = _span(settings.get("logingracetime", "0"))
    if 0 < grace_s <= timeout_s:
        yield Finding(
            "sshd-grace-time",
            WARNING,
            f"{server.name}: LoginGraceTime is {grace_s} s, timeout= of the PAM line {timeout_s:g} s",
            "sshd ends a login that waits for Slurm before the module can answer, with a half-done adoption",
            mend_setting(server.config, server.options, "LoginGraceTime", str(int(timeout_s) + 60)),
        )
    penalties = settings.get("persourcepenalties", "no")
    counts = not any(word.startswith("authfail:") and not word[9:].strip("0.s") for word in penalties.split())
    if penalties != "no" and counts and settings.get("persourcepenaltyexemptlist", "none") == "none":
        yield Finding(
            "sshd-penalties",
            WARNING,
            f"{server.name}: PerSourcePenalties is on, and PerSourcePenaltyExemptList is empty",
            "users who are refused for want of a job make sshd refuse everybody who comes from the same login node",
            f"PerSourcePenaltyExemptList ADDRESSES-OF-THE-CLUSTER    # in {server.config}, then reload sshd",
        )
    start, _, rest = settings.get("maxstartups", "").partition(":")
    if start.isdigit() and int(start) <= 10 and rest:
        yield Finding(
            "sshd-max-startups",
            NOTE,
            f"{server.name}: MaxStartups is {settings['maxstartups']}",
            "from so many logins at once on, sshd drops connections by chance: MPI jobs start with a storm of logins",
            mend_setting(server.config, server.options, "MaxStartups", "200:30:400"),
        )


def check_user_environment(node: Node, server: Server, service: str) -> Iterator[Finding]:
    """pam_env that reads users' files, where the account phase runs in another process than the session."""
    for line in node.stack(service, "session"):
        reads = any(word.replace(" ", "") == "user_readenv=1" for word in line.args)
        ours = node.our_lines("session", service)
        if line.module.endswith("pam_env.so") and reads and not _comes_before(ours, line.origin):
            yield Finding(
                "pam-user-environment",
                WARNING,
                f"{line.origin} reads ~/.pam_environment, and {server.name} has keyboard-interactive authentication",
                "users may change what the account phase has put into the environment, SLURM_JOB_ID among it",
                f"take user_readenv=1 out of {line.origin}",
            )
            return


def _comes_before(lines: list[OurLine], origin: str) -> bool:
    """Whether one of our session lines stands before this one."""
    places = [[line.origin for line in ours.stack] for ours in lines]
    return any(ours.index < stack.index(origin) for ours, stack in zip(lines, places))


# Which sshds there are ------------------------------------------------------------------------------


def find_servers(node: Node) -> Iterator[Server]:
    """Every sshd that listens, by its title: `sshd: /usr/sbin/sshd -f FILE [listener] 0 of 10-100 startups`."""
    if node.root:
        return
    for process in node.roots_processes("sshd"):
        server = read_server(process)
        if server is not None:
            yield server


def read_server(process: OwnedProcess) -> Server | None:
    """The sshd that a process of root's is, if it is one that listens."""
    title = read_title(process).decode("utf-8", "replace")
    command, mark, _ = title.partition(LISTENER)
    words = command.partition(": ")[2].split()
    if not mark or not words:
        return None
    options, config = _options(words[1:])
    name = f"sshd {config}" if config != DEFAULT_CONFIG else "sshd"
    return Server(name, read_program(process), options, config, os.path.basename(words[0]), process)


def pam_service_of(node: Node, server: Server) -> str | None:
    """The PAM service that an sshd uses; empty if it uses no PAM, None if it does not tell."""
    try:
        settings = _settings(run(_ask(node, server, "")))
    except DeadlineExceeded:
        return None
    if "usepam" not in settings:
        return None
    return settings.get("pamservicename", server.service) if settings["usepam"] == "yes" else ""


def _options(words: list[str]) -> tuple[tuple[str, ...], str]:
    """Of an sshd's command line what its settings depend on, and its file."""
    options: list[str] = []
    config = DEFAULT_CONFIG
    rest = iter(words)
    for word in rest:
        letter, value = word[1:2], word[2:]
        if word[:1] == "-" and letter and letter in WITH_WORD and not value:
            value = next(rest, "")
        if word[:1] == "-" and letter in ("f", "o", "p") and value:
            options += [f"-{letter}", value]
            config = value if letter == "f" else config
    return tuple(options), config


def _ask(node: Node, server: Server, spec: str) -> Task[str]:
    spec = spec or (NO_PORT if any("localport" in words for words, _ in _matches(server.config)) else "")
    try:
        program = resolve_program((server.program,))
        more = ("-C", spec) if spec else ()
        said = yield from run_program((program, "-T", *server.options, *more), ENVIRONMENT, node.deadline_ns)
    except (UntrustedProgram, ChildFault, OSError) as fault:
        return str(fault)
    return said.decode("utf-8", "replace")


def _settings(said: str) -> Settings:
    found: Settings = {}
    for line in said.splitlines():
        name, blank, value = line.partition(" ")
        if blank and name.isalnum():
            found.setdefault(name.lower(), value)
    return found


def _match_specs(config: str) -> list[str]:
    """A connection for each Match block, as `sshd -T -C` wants it: users, groups' members and addresses by name."""
    specs: list[str] = []
    for names, values in _matches(config):
        fields = {"user": "nobody", "host": "localhost", "addr": "127.0.0.1", "laddr": "127.0.0.1", "lport": "22"}
        for key, value in zip(names, values):
            first = next((word for word in value.split(",") if not set(word) & set("*?!")), "")
            if key == "group":
                fields["user"] = _member(first) or fields["user"]
            elif key in CRITERIA and first:
                fields[CRITERIA[key]] = first.partition("/")[0]
        specs.append(",".join(f"{key}={value}" for key, value in fields.items()))
    return list(dict.fromkeys(specs))[:MATCH_CAP]


def _matches(config: str) -> list[tuple[list[str], list[str]]]:
    """What each Match line asks for: names in lower case, and the lists behind them."""
    lines = (re.split(r"[\s=]+", line.strip().replace('"', "")) for line in config_lines(config))
    found = (words[1:] for words in lines if words[0].lower() == "match")
    return [([word.lower() for word in words[::2]], words[1::2]) for words in found]


def _member(group: str) -> str:
    for line in (read_file("/etc/group") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if fields[0] == group and len(fields) > 3:
            return fields[3].partition(",")[0]
    return ""


def _span(text: str) -> int:
    """sshd's times: `120`, `2m`, `1h30m`."""
    return sum(int(count) * SPANS_S[unit] for count, unit in re.findall(r"(\d+)([smhdw]?)", text.lower()))


def _somebody_listens() -> bool:
    """Whether one of sshd's ports is served: by systemd, where sshd is started for each connection."""
    words = (re.split(r"[\s=]+", line.strip()) for line in config_lines(DEFAULT_CONFIG))
    ports = {int(word[1]) for word in words if word[0].lower() == "port" and word[1:] and word[1].isdigit()} or {22}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (read_file(table) or b"").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == LISTENS.encode() and int(fields[1].rpartition(b":")[2], 16) in ports:
                return True
    return False
