# SPDX-License-Identifier: Apache-2.0
"""The resident service: one process, one loop, every login a task in it.

Rules of this file:
1. Under socket activation the listening socket is the service manager's: who was not accepted waits for the successor.
   A socket of our own is emptied before it is closed; who comes too late is told by the kernel, and the module starts
   the one-shot helper.
2. A stop finishes what was accepted, each within its own deadline, and nothing else.
3. Idle is: no login under way, no session open that is watched.
4. The numbers and the open sessions outlive the process in /run/slurm-adopt; a crash costs some seconds of them.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import signal
import time

from ..login.decided import decided_of
from ..observe.audit import Audit, login_event, move_event, stamp
from ..observe.metrics import Metrics
from ..observe.notes import take_moves, take_notes
from ..record import record, replace
from ..system.host.journal import LogSender
from ..system.host.listener import Listener, prepare_folder
from ..system.host.systemd import Supervisor
from ..system.kernel.hasten import put_right
from ..system.tasks import sockets as sock
from ..system.tasks.child import reap_children
from ..system.tasks.files import read_if_trusted, replace_file
from ..system.tasks.loop import Loop
from ..system.tasks.task import MS, POLLIN
from ..wire.logline import format_line
from .admin import Admin
from .clients import Clients
from .last_hour import WOULD_DENY, LastHour
from .late_answers import Late, LateAnswers
from .named_jobs import NamedJobs
from .node_cache import NodeCache
from .run_files import ADMIN_SOCKET, NUMBERS_FILE, RECENT_FILE, SESSIONS_FILE
from .session_ends import Endings
from .sessions import Session, Sessions
from .warn import Warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..login.answer import Answer
    from ..observe.notes import Decided

NUMBERS_CAP = 1 << 20
#: How old the written numbers may be.
WRITE_NS = 5_000 * MS
#: Under systemd the unit sets it. On a full node (four busy processes per processor) a login took 102 ms at 0, 48 ms at
#: -10 and 25 ms at -20, and the original's 200 ms (Linux 6.18). A real-time policy is refused where the service's
#: cgroup has no budget for it (CONFIG_RT_GROUP_SCHED), and would put a program that reads what users send before all.
NICE = -20
WARM_UP_NS = 10_000 * MS
#: The loop's lag is looked at this often. Below the first bound it is a login's usual work, above the second one the
#: log tells of it.
LAG_LOOK_NS, LAG_NOTED_NS, LAG_LOGGED_NS = 1_000 * MS, 5 * MS, 250 * MS
#: A login leaves no cycles behind, but one that fails may: its exception and the frames it went through. So many new
#: objects that are not freed by themselves are some hundred such logins, and 2 MiB.
GARBAGE = 20_000


@record
class Setup:
    """The settings of the command line. `idle_exit_s` 0: never; `warn_before_s` empty: no warnings."""

    listen: str = ""
    idle_exit_s: float = 0
    metrics_file: str = ""
    audit_journal: bool = True
    audit_file: str = ""
    warn_before_s: tuple[int, ...] = ()


class Service:
    """The parts of the service, and its life."""

    def __init__(self, setup: Setup, activated: list[sock.Socket]) -> None:
        self.setup = setup
        self.loop = Loop()
        self.metrics = Metrics()
        self.last_hour = LastHour()
        self.memory = NodeCache(self.loop, self._on_remark)
        self.memory.late = LateAnswers(self.loop, self._on_late)
        self.clients = Clients(self.loop, self.memory, self.metrics)
        self.clients.on_answer = self._on_answer
        self.audit = Audit(self.metrics, setup.audit_journal, setup.audit_file)
        self.named = NamedJobs(self.loop, self.memory, self.audit)
        self.endings = Endings(self.loop, self.memory, self.audit)
        self.sessions = Sessions(self.loop, self.endings.ended, self._take_moves)
        marks_s = setup.warn_before_s
        self.warner = Warner(self.memory, self.sessions, marks_s, self.named.names) if marks_s else None
        self._watches = self.audit.enabled or self.warner is not None
        self.supervisor = Supervisor()
        self._own: list[Listener] = []
        self._stopping = False
        self._writing = False
        self._log = LogSender("slurm-adopt")
        for socket in activated:
            self.clients.listen(socket)
        if setup.listen:
            listener = Listener(setup.listen, _socket.SOCK_SEQPACKET)
            self._own.append(listener)
            self.clients.listen(listener.socket)
        prepare_folder(ADMIN_SOCKET)
        self._load_numbers()
        listener = Listener(ADMIN_SOCKET, _socket.SOCK_STREAM)
        self._own.append(listener)
        answers = {b"metrics": self.render, b"recent": self._render_recent}
        self.admin = Admin(self.loop, listener.socket, answers)

    def run(self) -> None:
        """Serve until stopped or idle."""
        self._take_signals()
        # jobs have all processors, and in a storm hundreds of sshds want them, each for longer than all of this
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if put_right():
            self._log.send(format_line([("event", "grace-periods-put-back")]))
        if self._watches:
            self.sessions.restore(SESSIONS_FILE)
        self._take_notes()
        if self.warner is not None:
            self.loop.spawn(self.warner.watch())
        self.metrics.put("slurm_adopt_start_time_seconds", int(time.time()))
        self.metrics.start_at_zero()
        self.loop.spawn(self.memory.warm_up(time.monotonic_ns() + WARM_UP_NS))
        self.supervisor.tell("READY=1")
        self._watchdog()
        self._measure_lag()
        self._check_idle()
        # what is there now stays, and the collector's usual 700 objects are two logins
        gc.freeze()
        gc.set_threshold(GARBAGE)
        while not (self._stopping and not self.clients.open):
            self.loop.turn()
        self._end()

    def stop(self) -> None:
        """Accept nobody any more; `run` returns when the accepted ones have their answers."""
        if self._stopping:
            return
        self._stopping = True
        self.supervisor.tell("STOPPING=1")
        self.clients.stop(take_all=bool(self.setup.listen))
        for listener in self._own:
            self.loop.unwatch(listener.socket.fileno())
            listener.close()
        self.loop.call_at(0, lambda: None)  # so that the loop's turn ends, even if nothing else happens

    def _end(self) -> None:
        self.endings.flush()
        if self._watches:
            _attempt(lambda: self.sessions.save(SESSIONS_FILE))
        self._write_numbers()

    def _take_signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def woken(_events: int) -> None:
            if set(os.read(read, 64)) - {signal.SIGCHLD}:
                self.stop()
            reap_children()

        self.loop.watch(read, POLLIN, woken)

    def _watchdog(self) -> None:
        if self.supervisor.watchdog_ns:
            self.supervisor.tell("WATCHDOG=1")
            self.loop.call_at(time.monotonic_ns() + self.supervisor.watchdog_ns // 3, self._watchdog)

    def _on_remark(self, remark: str) -> None:
        """slurmd uses another slurm.conf than the usual places have, or some such thing: once for all logins."""
        self._log.send(format_line([("event", "slurm-conf"), ("detail", remark)]))

    def _on_late(self, late: Late) -> None:
        """Record that slurmstepd has moved a process that was not for it any more."""
        if late.owner == late.uid:
            line: list[tuple[str, str | int]] = [("event", "late-adoption"), ("pid", late.pid), ("uid", late.uid)]
            self._log.send(format_line([*line, ("undone", str(late.is_back).lower())]))
        else:
            self._on_stranger(late)

    def _on_stranger(self, stranger: Late) -> None:
        """Record that slurmstepd moved another user's process into a job because its pid was reused."""
        self.metrics.count("slurm_adopt_strangers_in_steps_total", undone=str(stranger.is_back).lower())
        event: list[tuple[str, str | int]] = [
            ("event", "stranger-in-step"),
            ("security", "stranger-in-step"),
            ("pid", stranger.pid),
            ("owner", stranger.owner),
            ("job_owner", stranger.uid),
            ("undone", str(stranger.is_back).lower()),
        ]
        self._log.send(format_line(event))
        if self.audit.enabled:
            self.audit.write({"time": stamp(time.time()), **dict(event)})

    def _measure_lag(self) -> None:
        """How late the loop was: into the numbers, and into the log if somebody must have noticed."""
        longest_ns, name = self.loop.take_longest()
        if longest_ns > LAG_NOTED_NS:
            self.metrics.observe("slurm_adopt_loop_seconds", longest_ns / 1e9)
        if longest_ns > LAG_LOGGED_NS:
            self._log.send(format_line([("event", "service-late"), ("ms", longest_ns // MS), ("task", name)]))
        if not self._stopping:
            self.loop.call_at(time.monotonic_ns() + LAG_LOOK_NS, self._measure_lag)

    def _check_idle(self) -> None:
        if not self.setup.idle_exit_s or self._stopping:
            return
        now_ns = time.monotonic_ns()
        limit_ns = int(self.setup.idle_exit_s * 1e9)
        busy = bool(self.clients.open or self.sessions or self.endings.waiting)
        due_ns = now_ns + limit_ns if busy else self.clients.last_active_ns + limit_ns
        if due_ns <= now_ns:
            self.stop()
        else:
            self.loop.call_at(due_ns, self._check_idle)

    # After an answer -------------------------------------------------------------------------------

    def _on_answer(self, answer: Answer, seconds: float) -> None:
        session = self._enter(decided_of(answer, seconds), "resident")
        if session is not None:
            self.sessions.opened(session)
        if answer.facts.phase == "close_session":
            self.sessions.closed(answer.caller)
        else:
            self.named.look(answer)
        self._numbers_changed()

    def _enter(self, decided: Decided, path: str) -> Session | None:
        """Into the books: numbers and audit stream. The session that is to be watched, if it is one."""
        if decided.caller != "not-asked":
            path = "caller-id"
            self.metrics.count("slurm_adopt_callers_total", status=decided.caller)
        verdict, reason = decided.action, decided.reason
        self.metrics.count("slurm_adopt_logins_total", phase=decided.phase, verdict=verdict, reason=reason, path=path)
        if decided.phase == "close_session":
            return None
        self.metrics.observe("slurm_adopt_login_seconds", decided.seconds, verdict=verdict, path=path)
        if decided.enforce != "yes" and verdict == "deny":
            self.metrics.count("slurm_adopt_would_deny_total", reason=reason, enforce=decided.enforce)
        if not _says_nothing_new(decided):
            shown = WOULD_DENY if decided.enforce != "yes" and verdict == "deny" else verdict
            self.last_hour.count(decided.when, shown, reason)
            if self.audit.enabled:
                self.audit.write(login_event(decided, path))
        is_deferred = decided.reason == "adopt-deferred"
        is_in_job = decided.action == "allow" and decided.job and decided.enforce != "no" and not is_deferred
        return _session(decided) if self._watches and is_in_job and decided.pid else None

    def _take_notes(self) -> None:
        """The logins that one-shot helpers have decided meanwhile."""
        with contextlib.suppress(OSError):
            # both phases of a login that is over by now: it is one session, with one end
            sessions: dict[tuple[int, int], Session] = {}
            for decided in take_notes():
                session = self._enter(decided, "one-shot")
                if session is not None:
                    key = session.pid, session.started
                    sessions[key] = replace(session, began=sessions.setdefault(key, session).began)
            for session in sessions.values():
                self.sessions.opened(session)
            self._take_moves()

    def _take_moves(self) -> None:
        """Read the users' moves before the end of a session is written, so that it names the right job."""
        with contextlib.suppress(OSError):
            for move in take_moves():
                self.metrics.count("slurm_adopt_moves_total", result=move.result, reason=move.reason)
                session = self.sessions.moved(move, move.job) if move.result == "ok" else None
                if self.audit.enabled:
                    self.audit.write(move_event(move, session.user if session is not None else ""))

    # Numbers ---------------------------------------------------------------------------------------

    def render(self) -> str:
        """The numbers as they are now."""
        self._take_notes()
        metrics, admission = self.metrics, self.clients.admission
        metrics.put("slurm_adopt_logins_running", admission.running)
        metrics.put("slurm_adopt_logins_waiting", admission.waiting)
        metrics.put("slurm_adopt_sessions", len(self.sessions))
        report_memory(metrics)
        self.memory.report(metrics)
        return metrics.render()

    def _numbers_changed(self) -> None:
        if not self._writing:
            self._writing = True
            self.loop.call_at(time.monotonic_ns() + WRITE_NS, self._write_numbers)

    def _write_numbers(self) -> None:
        self._writing = False
        data = self.render().encode("ascii", "replace")
        # how many log in when is nobody's business but root's; what node_exporter is to read, the site has asked for
        _attempt(lambda: replace_file(NUMBERS_FILE, data, 0o600))
        recent = self.last_hour.render(time.time()).encode()
        _attempt(lambda: replace_file(RECENT_FILE, recent, 0o600))
        if self.setup.metrics_file:
            # node_exporter reads at any time; its folder may belong to somebody else than root
            _attempt(lambda: replace_file(self.setup.metrics_file, data, 0o644))

    def _render_recent(self) -> str:
        """The last hour."""
        self._take_notes()
        return self.last_hour.render(time.time())

    def _load_numbers(self) -> None:
        for path, load in ((NUMBERS_FILE, self.metrics.load), (RECENT_FILE, self.last_hour.load)):
            with contextlib.suppress(OSError):
                load((read_if_trusted(path, NUMBERS_CAP) or b"").decode("ascii", "replace"))


def _session(decided: Decided) -> Session:
    who = (decided.pid, decided.started, decided.user, decided.uid)
    return Session(*who, decided.job, decided.source, decided.nodename, decided.when, decided.auth)


def _says_nothing_new(decided: Decided) -> bool:
    """Whether it is the session phase of a login that the account phase has told of."""
    observed = decided.enforce == "no" and decided.phase == "open_session" and decided.action == "allow"
    return observed or decided.reason in ("session-verified", "session-not-ours")


def _attempt(act: Callable[[], None]) -> None:
    """Run a final act whose failure does no harm; ignore OSError."""
    with contextlib.suppress(OSError):
        act()


def report_memory(metrics: Metrics) -> None:
    """Put the service's resident memory; without a descriptor left the earlier value stays."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        resident_pages = int(file.read().split()[1])
        metrics.put("slurm_adopt_memory_bytes", resident_pages * os.sysconf("SC_PAGE_SIZE"))
