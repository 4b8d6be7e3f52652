# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.torture --minutes 5 --seed 7`: run, and print the report as Markdown."""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("", "tools")]

from tests.node.login import nss_lab  # noqa: E402
from tests.torture.faults import FAULTS, Fault  # noqa: E402
from tests.torture.hostile import DEEDS_PLACE, ONWARD, deed_of  # noqa: E402
from tests.torture.people import TROUBLE, People, Person  # noqa: E402
from tests.torture.stage import (  # noqa: E402
    AUDIT_FILE,
    HELPER,
    Service,
    Stage,
    kill_all,
    not_now,
    nothing,
    stopped_processes,
    surely,
)
from tests.torture.upgrade import make_ready  # noqa: E402
from tests.torture.watch import Watch  # noqa: E402

from lab.cgroups import CgroupTree  # noqa: E402
from lab.machine import LabError, wait_for  # noqa: E402
from lab.node import Node  # noqa: E402
from lab.product import use_product  # noqa: E402

TIMEOUT_S = 10
LINE = f"required pam_slurm_adopt.so profile=strict timeout={TIMEOUT_S} user_move=yes"
#: What a session does: it says where the kernel shows it, and stays for a moment, so that the watch sees it as well.
SESSION = "echo job=$SLURM_JOB_ID=; cat /proc/self/cgroup; echo =told; "
STAYS = "sleep 0.$((RANDOM % 10))"
ADMITTED = re.compile(r"^job=(\d*)=\r?$", re.MULTILINE)
#: All of it: a job that ends takes the session with it, in the middle of a line perhaps.
TOLD = re.compile(r"^job=(\d*)=\r?\n(.*?)^=told\r?$", re.DOTALL | re.MULTILINE)
#: A client waits so long: for a busy machine, and for the longest fault.
PATIENCE_S = 180
#: One session in so many is a hostile one.
HOSTILE = 4
#: After so many faults in a row that could not be put right nothing is tried any more.
UNMENDED_CAP = 5
#: Where logins say that the kernel shall hasten (docs/performance.md).
SWITCH = "/sys/kernel/rcu_expedited"
#: What a service that has logged in some dozens of users may hold more than a new one.
MORE_DESCRIPTORS, MORE_KIB = 3, 8192
#: It waits 60 s for a slurmstepd that answers too late, and keeps who speaks to munged for 30 s.
SETTLED_S = 90
#: The client's own limit covers the time until sshd's first word.
PATIENT = (f"ConnectTimeout={PATIENCE_S}",)
METHODS = ({"auth": "publickey"}, {"auth": "password"}, {"auth": "keyboard-interactive", "port": 2222}, {"tty": True})


class Numbers(NamedTuple):
    """What the service holds."""

    descriptors: int
    memory_kib: int
    shown: str = ""


class Torture:
    """One run."""

    def __init__(self, node: Node, seed: int, workers: int, faults: Sequence[Fault] = FAULTS) -> None:
        self.node = node
        self.seed = seed
        self.workers = workers
        self.choice = faults
        self.people = People(node, random.Random(seed + 1))
        self.stage = Stage(node, self.people, random.Random(seed + 2))
        self.watch = Watch(self.people, TIMEOUT_S)
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.deeds: Counter[str] = Counter()
        self.movers: set[int] = set()
        """Users who have moved a login."""
        self.onward: Counter[str] = Counter()
        """Logins from inside a job, by where they went."""
        self.durations_s: list[float] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.held_at_last: dict[str, Numbers] = {}
        self.broken: list[str] = []
        """What ended the run."""
        self.trouble: list[str] = []
        """Faults that could not be put in or taken back as they should, and were put right."""

    def prepare(self) -> None:
        """Accounts, jobs, the service and a second sshd."""
        self.people.make_accounts()
        self.node.run("mkdir -p /run/lab/audit && mount -t tmpfs -o size=128m none /run/lab/audit")
        # a file in the place of the kernel's setting, which is the whole machine's
        self.node.write("/run/lab/rcu_expedited", "0\n")
        self.node.run(["mount", "--bind", "/run/lab/rcu_expedited", SWITCH])
        nss_lab.install(self.node)
        use_product(self.node, LINE)
        make_ready(self.node)
        self.node.path(DEEDS_PLACE).parent.mkdir(parents=True, exist_ok=True)
        self.node.install(Path(__file__).with_name("deeds.py"), DEEDS_PLACE, 0o644)
        self.node.sshd("kbd", 2222, ["KbdInteractiveAuthentication yes", "PasswordAuthentication no"])
        self.stage.start()
        self.people.keep_jobs()
        wanted = sum(person.jobs for person in self.people.everybody) - 5
        wait_for(lambda: len(self.node.jobs()) >= wanted, "the jobs to run", 300, 1)

    def run(self, seconds: float) -> None:
        """Logins, faults and the watch, for so long; then everything is taken back."""
        threads = [
            threading.Thread(target=self._guarded, args=(work, number))
            for work, number in [(self._log_in, number) for number in range(self.workers)]
            + [(self._root, 0), (self._fault, 0), (self._jobs, 0)]
        ]
        self.watch.start()
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0 and not self._over.wait(min(left, 60)):
            print(self._so_far(time.monotonic() - began), flush=True)
        self._over.set()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """The watch looks until nobody is logged in any more."""
        self.watch.stop()

    def _so_far(self, seconds: float) -> str:
        """A line, for whoever waits for the report."""
        numbers = (len(self.durations_s), sum(self.faults.values()), len(self.watch.violations))
        return f"{seconds / 60:.0f} min: " + "{} logins, {} faults, {} violations".format(*numbers)

    def _guarded(self, work, number: int) -> None:  # type: ignore[no-untyped-def]
        chance = random.Random(f"{self.seed} {work.__name__} {number}")
        try:
            work(chance)
        except Exception as error:  # the rig's own trouble ends the run, and is not a violation
            self.broken.append(f"{work.__name__}: {error!r}")
            self._over.set()

    def _log_in(self, chance: random.Random) -> None:
        while not self._over.is_set():
            person = chance.choice(self.people.everybody)
            how = dict(chance.choice(METHODS))
            deed = deed_of(chance) if not chance.randrange(HOSTILE) else None
            if deed and deed.moves:
                self.movers.add(person.uid)
            began = time.monotonic()
            try:
                output = self._ssh(person.name, SESSION + (deed.command if deed else STAYS), **how)
                if output is None:
                    self._gave_up(person)
                    continue
            except TROUBLE as error:  # no client could be started
                self.trouble.append(f"a login: {error}"[:300])
                self._over.wait(1)
                continue
            self._note(person, output, time.monotonic() - began)
            if deed and TOLD.search(output):
                self.deeds[deed.name] += 1
                self.watch.judge_hostile(person.uid, output)
                if "Traceback" in output:
                    self.trouble.append(f"{deed.name}: {output[output.index('Traceback') :].split()[-12:]}")
                for uid, job, cgroups in ONWARD.findall(output):
                    self._judge_onward(person, TOLD.search(output), int(uid), job, cgroups)

    def _judge_onward(self, person: Person, came_from: re.Match[str] | None, uid: int, job: str, cgroups: str) -> None:
        """A login from inside a job; how many are in the job that they came from stands in the report."""
        if whose := self.people.uids.get(uid):
            self.watch.judge_admitted(uid, whose.kind)
        self.watch.judge_session(uid, cgroups, job)
        if uid != person.uid:
            self.onward["as another user"] += 1
        else:
            same = came_from is not None and came_from[1] == job
            self.onward["into the job they came from" if same else "into another job of the user's"] += 1

    def _ssh(self, name: str, command: str, **how: Any) -> str | None:
        """What a login prints; None if it did not end."""
        try:
            done = self.node.ssh(name, command, timeout=PATIENCE_S, options=PATIENT, **how)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout

    def _gave_up(self, person: Person) -> None:
        """A login that does not end: a violation, but where its job is stopped all the time."""
        stopped = person.uid in [uid for _, uid in stopped_processes(self.node.path("/proc"))]
        self.outcomes[f"{person.kind}: {'stopped with its job' if stopped else 'without an end'}"] += 1
        if not stopped:
            shown = [p.command for p in self.node.processes() if p.uid == person.uid or person.name in p.command]
            self.watch.violations.append(f"a login of {person.name} did not end in {PATIENCE_S} s: {shown}")

    def _note(self, person: Person, output: str, seconds: float) -> None:
        admitted, told = ADMITTED.search(output), TOLD.search(output)
        with self._lock:
            if seconds:
                self.durations_s.append(seconds)
            self.outcomes[f"{person.kind}: {'admitted' if admitted else 'refused'}"] += 1
        if admitted:
            self.watch.judge_admitted(person.uid, person.kind)
        if told:
            self.watch.judge_session(person.uid, told[2], told[1])

    def recover(self) -> None:
        """No fault any more: everybody who has a job is let in, nobody else, and what was hastened is put back.

        What Slurm has to be helped with (jobs that it holds back, or has left suspended) is helped with first.
        """

        def is_as_it_should_be() -> bool:
            surely(self.stage.mend)
            self.people.keep_jobs()
            self.people.mend_jobs()
            running = Counter(self.people.running_uids())
            steady = [person for person in self.people.everybody if person.kind != "short"]
            return all(running[person.uid] >= person.jobs for person in steady) and all(
                self.node.extern_runs(job) for job in self.node.jobs()
            )

        try:
            wait_for(is_as_it_should_be, "Slurm to recover", 300, 1)
        except TROUBLE as error:
            self.broken.append(f"{error}: {self.node.why_not_started()}")
            return
        for person in self.people.everybody:
            if person.kind == "short":
                continue
            output = self._ssh(person.name, SESSION + STAYS) or ""
            self._note(person, output, 0.0)
            if person.jobs and not ADMITTED.search(output):
                self.watch.violations.append(f"after all faults uid {person.uid} ({person.kind}) was refused: {output}")
        if (setting := int(self.node.read(SWITCH))) != 0:
            self.watch.violations.append(f"{SWITCH} is {setting} when nobody logs in")

    def _root(self, chance: random.Random) -> None:
        while not self._over.wait(chance.random()):
            try:
                done = self.node.ssh("root", "echo in", timeout=PATIENCE_S, options=PATIENT)
                status, said = done.returncode, done.stdout + done.stderr
            except subprocess.TimeoutExpired:
                status, said = -1, "no end"
            self.outcomes["root: admitted" if status == 0 else "root: refused"] += 1
            self.watch.judge_root(status, said)

    def _fault(self, chance: random.Random) -> None:
        unmended = 0
        while not self._over.wait(chance.uniform(0.5, 3)):
            fault = chance.choice(self.choice)
            take_back = nothing
            try:
                take_back = fault.begin(self.stage)
                if take_back is not_now:
                    continue
                self.faults[fault.name] += 1
                self._over.wait(chance.uniform(0.5, 6))
            except TROUBLE as error:  # it was not possible just now; what is half done is put right
                self.trouble.append(f"{fault.name}: {error}"[:300])
            try:
                surely(take_back)
            except LabError as error:
                self.trouble.append(f"{fault.name}, taken back: {error}"[:300])
            try:
                surely(self.stage.mend)
                unmended = 0
            except LabError as error:
                self.trouble.append(f"{fault.name}, put right: {error}"[:300])
                unmended += 1
                if unmended == UNMENDED_CAP:
                    raise

    def _jobs(self, _: random.Random) -> None:
        while not self._over.wait(4):
            self.people.keep_jobs()
            self.people.mend_jobs()
            self.watch.judge_unclear()

    def numbers(self) -> dict[str, Numbers]:
        """Of the running services."""
        return {"service": self._numbers(self.stage.service), "service for users": self._numbers(self.stage.users)}

    def _numbers(self, service: Service) -> Numbers:
        try:
            pid = wait_for(lambda: service.pid, "the service to run", 60, 0.2)
        except LabError as error:
            self.broken.append(f"{error}: {self.node.read('/run/lab/service.log')[-500:]}")
            return Numbers(0, 0)
        status = self.node.read(f"/proc/{pid}/status")
        links = [os.readlink(path) for path in self.node.path(f"/proc/{pid}/fd").iterdir()]
        return Numbers(len(links), int(status.partition("VmRSS:")[2].split()[0]), " ".join(sorted(links)))

    def judge_end(self) -> None:
        """Nothing of a login is left: no helper, no sshd, and no session in the service's list."""
        kill_all(self.node, HELPER, signal.SIGCONT)
        try:
            wait_for(lambda: not self._left(), "the last logins to end", 60, 0.5)
        except LabError:
            self.watch.violations.append(f"processes are left: {self._left()}")
        try:
            wait_for(lambda: self._sessions() == 0, "the last session's end to be seen", 60, 0.5)
        except LabError:
            self.watch.violations.append(f"sessions that the service has when nobody is logged in: {self._sessions()}")
        self.watch.judge_unclear(at_last=True)

    def _left(self) -> list[str]:
        """Of helpers and users' sshds. A user's process may call itself so."""

        def is_sshd(pid: int) -> bool:
            try:
                return Path(os.readlink(self.node.path(f"/proc/{pid}/exe"))).name.startswith("sshd")
            except OSError:
                return False

        return [
            p.command
            for p in self.node.processes()
            if (HELPER in p.command and p.uid == 0) or (p.command.startswith("sshd: user") and is_sshd(p.pid))
        ]

    def _sessions(self) -> int:
        """Open ones, as the service counts them; -1 if it does not say."""
        shown = self.node.run(["slurm-adopt", "metrics"], check=False).stdout
        found = re.search(r"^slurm_adopt_sessions (\d+)$", shown, re.MULTILINE)
        return int(found[1]) if found else -1

    def judge_numbers(self, before: dict[str, Numbers]) -> None:
        """A service that has been used holds no more than a new one, once it has had a while to let go."""

        def settled() -> bool:
            self.held_at_last = self.numbers()
            now = self.held_at_last
            return all(now[name].descriptors <= was.descriptors + MORE_DESCRIPTORS for name, was in before.items())

        first = self.numbers()["service"]
        try:
            wait_for(settled, "the descriptors to be closed", SETTLED_S, 1)
        except LabError:
            self.trouble.append(f"descriptors at first: {first.shown}")
        for name, was in before.items():
            now = self.held_at_last[name]
            if not (was.memory_kib and now.memory_kib):
                continue
            if now.descriptors > was.descriptors + MORE_DESCRIPTORS:
                what = f"descriptors of the {name}: {was.descriptors} → {now.descriptors}"
                self.watch.violations.append(f"{what}: {now.shown}")
            if now.memory_kib > was.memory_kib + MORE_KIB:
                self.watch.violations.append(f"memory of the {name}: {was.memory_kib} → {now.memory_kib} KiB")

    def judge_audit(self) -> int:
        """Each admitted login of the stream is in a job of its user; how many there are."""
        import json

        count = 0
        for line in self.node.read(AUDIT_FILE).splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by the full disk
            if event.get("event") != "login" or event.get("verdict") != "allow" or event.get("uid", 0) < 2001:
                continue
            count += 1
            # (the uid of a cgroup v1 path is the owner of a number that was given twice)
            known = event["uid"] in self.people.owners_of.get(event["job"], {event["uid"]})
            if not known and f"/uid_{event['uid']}/" not in event["where"]:
                self.watch.violations.append(f"the audit stream says: {line}")
            elsewhere = event["where"] and f"job_{event['job']}/" not in event["where"] + "/"
            # (a helper's login is written down a little later: its user may have moved it meanwhile)
            if elsewhere and event["uid"] not in self.movers:
                self.watch.violations.append(f"the audit stream's job and place differ: {line}")
        return count


def counted(numbers: Counter[str]) -> str:
    """Each with its number, in one line."""
    return ", ".join(f"{what} {count}" for what, count in sorted(numbers.items())) or "none"


def report(torture: Torture, seconds: float, before: dict[str, Numbers], lines: int, events: int) -> str:
    """Markdown."""
    times = sorted(torture.durations_s) or [0.0]
    node, stage, watch = torture.node, torture.stage, torture.watch
    after = torture.held_at_last or before
    told = [
        f"* {seconds / 60:.1f} minutes, seed {torture.seed}, Slurm {node.slurm_version}, cgroup v{node.tree.version}, "
        f"{torture.workers} logins at a time, `timeout={TIMEOUT_S}`",
        f"* {len(torture.durations_s)} logins of {len(torture.people.everybody)} users besides root's: "
        + counted(torture.outcomes),
        f"* hostile sessions: {counted(torture.deeds)}",
        f"* admitted from inside a job: {counted(torture.onward)}",
        f"* {torture.people.submitted} jobs submitted; {sum(torture.faults.values())} faults: {counted(torture.faults)}",
        f"* taken in late by a slurmstepd that was stopped: {'; '.join(watch.late) or 'none'}",
        f"* put right afterwards: {counted(stage.put_right)}",
        f"* a login took {times[len(times) // 2]:.2f} s at the median, {times[-1]:.2f} s at most (client's view); "
        f"the module at most {watch.longest_ms} ms in {lines} lines of the log",
        f"* the watch looked {watch.looks} times and judged {watch.processes_seen} processes of users",
        f"* audit stream: {events} admitted logins",
        *(
            f"* {name}: {before[name].descriptors} → {after[name].descriptors} descriptors, "
            f"{before[name].memory_kib} → {after[name].memory_kib} KiB, started {service.starts} times"
            for name, service in (("service", stage.service), ("service for users", stage.users))
        ),
        f"* **{len(watch.violations)} violations**",
    ]
    told += [f"    * {violation}" for violation in watch.violations[:40]]
    told += [f"* the rig had trouble: {what}" for what in torture.trouble[:40]]
    told += [f"* the rig failed: {what}" for what in torture.broken]
    return "\n".join(told)


def main() -> int:
    """The exit status: 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="default: a new one")
    parser.add_argument("--workers", type=int, default=6, help="logins at a time")
    parser.add_argument("--faults", default="", metavar="PATTERN", help="only those whose name has this in it")
    args = parser.parse_args()
    faults = [fault for fault in FAULTS if re.search(args.faults, fault.name)]
    if not faults:
        parser.error(f"no fault is called {args.faults}")
    if not shutil.which("cc"):
        parser.error("cc is missing: the name service that hangs is built with it")
    seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    print(f"torture: {args.minutes} minutes, seed {seed}", flush=True)
    node = Node(slurm={"SlurmdTimeout": "3600", "JobRequeue": "1"})
    node.tree = CgroupTree.on_this_host(node.name, frozenset({"pids"}))
    with node:
        torture = Torture(node, seed, args.workers, faults)
        torture.prepare()
        before = torture.numbers()
        mark = node.log_mark()
        began = time.monotonic()
        torture.run(args.minutes * 60)
        seconds = time.monotonic() - began
        for judge in (torture.recover, torture.judge_end, lambda: torture.judge_numbers(before)):
            try:
                judge()
            except TROUBLE as error:  # what was seen is reported all the same
                torture.broken.append(repr(error))
        torture.stop()
        if torture.watch.failure:
            torture.broken.append(f"the watch: {torture.watch.failure}")
        lines = torture.watch.judge_log(node.log_since(mark))
        print(report(torture, seconds, before, lines, torture.judge_audit()), flush=True)
        torture.stage.users.end(signal.SIGTERM)
        torture.stage.service.end(signal.SIGTERM)
        node.run(["umount", "/run/lab/audit", SWITCH], check=False)
    return 1 if torture.watch.violations or torture.broken else 0


if __name__ == "__main__":
    sys.exit(main())
