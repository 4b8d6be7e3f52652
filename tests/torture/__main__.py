# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.torture --minutes 5 --seed 7`: run, and print the report as Markdown."""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("", "tools")]

from tests.torture.faults import AUDIT_FILE, FAULTS, Service, Stage, TakeBack, kill_all  # noqa: E402
from tests.torture.people import People, Person  # noqa: E402
from tests.torture.watch import Watch  # noqa: E402

from lab.machine import LabError, wait_for  # noqa: E402
from lab.node import Node  # noqa: E402
from lab.product import use_product  # noqa: E402

TIMEOUT_S = 10
LINE = f"required pam_slurm_adopt.so profile=strict timeout={TIMEOUT_S}"
#: What a session does: it says where the kernel shows it, and stays for a moment, so that the watch sees it as well.
SESSION = "echo job=$SLURM_JOB_ID=; cat /proc/self/cgroup; sleep 0.$((RANDOM % 10))"
TOLD = re.compile(r"job=(\d*)=\r?\n(.*)", re.DOTALL)
#: Where logins say that the kernel shall hasten (docs/performance.md).
SWITCH = "/sys/kernel/rcu_expedited"
#: What a service that has logged in some dozens of users may hold more than a new one.
MORE_DESCRIPTORS, MORE_KIB = 3, 8192
METHODS = ({"auth": "publickey"}, {"auth": "password"}, {"auth": "keyboard-interactive", "port": 2222}, {"tty": True})


class Numbers(NamedTuple):
    """What the service holds."""

    descriptors: int
    memory_kib: int


class Torture:
    """One run."""

    def __init__(self, node: Node, seed: int, workers: int) -> None:
        self.node = node
        self.chance = random.Random(seed)
        self.workers = workers
        self.people = People(node, random.Random(seed + 1))
        self.service = Service(node)
        self.watch = Watch(self.people, TIMEOUT_S)
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.durations_s: list[float] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.broken: list[str] = []

    def prepare(self) -> None:
        """Accounts, jobs, the service and a second sshd."""
        self.people.make_accounts()
        self.node.run("mkdir -p /run/lab/audit && mount -t tmpfs -o size=4m none /run/lab/audit")
        # a file in the place of the kernel's setting, which is the whole machine's
        self.node.write("/run/lab/rcu_expedited", "0\n")
        self.node.run(["mount", "--bind", "/run/lab/rcu_expedited", SWITCH])
        use_product(self.node, LINE)
        self.node.sshd("kbd", 2222, ["KbdInteractiveAuthentication yes", "PasswordAuthentication no"])
        self.service.start()
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
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _guarded(self, work, number: int) -> None:  # type: ignore[no-untyped-def]
        chance = random.Random(f"{self.chance.random()}{number}")
        try:
            work(chance)
        except Exception as error:  # the rig's own trouble ends the run, and is not a violation
            self.broken.append(f"{work.__name__}: {error!r}")
            self._over.set()

    def _log_in(self, chance: random.Random) -> None:
        while not self._over.is_set():
            person = chance.choice(self.people.everybody)
            how = dict(chance.choice(METHODS))
            began = time.monotonic()
            done = self.node.ssh(person.name, SESSION, timeout=180, **how)  # type: ignore[arg-type]
            self._note(person, done.returncode, done.stdout, time.monotonic() - began)

    def _note(self, person: Person, status: int, output: str, seconds: float) -> None:
        told = TOLD.search(output)
        with self._lock:
            if seconds:
                self.durations_s.append(seconds)
            self.outcomes[f"{person.kind}: {'admitted' if told else 'refused'}"] += 1
        # a job that ends takes the session with it, in the middle of a line perhaps
        if told and (status == 0 or told[2].count("\n") > 5):
            if told[1] and int(told[1]) not in self.people.owners_of:
                self.people.learn()
            self.watch.judge_session(person.uid, person.kind, told[2], told[1])

    def recover(self) -> None:
        """No fault any more: everybody who has a job is let in, nobody else, and what was hastened is put back.

        What Slurm has to be helped with (jobs that it holds back, or has left suspended) is helped with first.
        """

        def is_as_it_should_be() -> bool:
            self.service.start()
            self.people.keep_jobs()
            self.people.mend_jobs()
            running = Counter(self.people.running_uids())
            steady = [person for person in self.people.everybody if person.kind != "short"]
            return all(running[person.uid] >= person.jobs for person in steady) and all(
                self.node.extern_runs(job) for job in self.node.jobs()
            )

        try:
            wait_for(is_as_it_should_be, "Slurm to recover", 300, 1)
        except (LabError, subprocess.SubprocessError) as error:
            self.broken.append(f"{error}: {self.node.why_not_started()}")
            return
        for person in self.people.everybody:
            if person.kind == "short":
                continue
            done = self.node.ssh(person.name, SESSION, timeout=180)
            self._note(person, done.returncode, done.stdout, 0.0)
            if person.jobs and not TOLD.search(done.stdout):
                self.watch.violations.append(f"after all faults uid {person.uid} ({person.kind}) was refused: {done}")
        if (setting := int(self.node.read(SWITCH))) != 0:
            self.watch.violations.append(f"{SWITCH} is {setting} when nobody logs in")

    def _root(self, chance: random.Random) -> None:
        while not self._over.wait(chance.random()):
            done = self.node.ssh("root", "echo in", timeout=180)
            self.outcomes["root: admitted" if done.returncode == 0 else "root: refused"] += 1
            self.watch.judge_root(done.returncode, done.stdout + done.stderr)

    def _fault(self, chance: random.Random) -> None:
        stage = Stage(self.node, self.people, self.service)
        while not self._over.wait(chance.uniform(0.5, 3)):
            fault = chance.choice(FAULTS)
            take_back: TakeBack = fault.begin(stage)
            self.faults[fault.name] += 1
            self._over.wait(chance.uniform(0.5, 6))
            take_back()
            self.service.start()

    def _jobs(self, _: random.Random) -> None:
        while not self._over.wait(4):
            self.people.keep_jobs()

    def numbers(self) -> Numbers:
        """Of the running service."""
        try:
            pid = wait_for(lambda: self.service.pid, "the service to run", 60, 0.2)
        except LabError as error:
            self.broken.append(f"{error}: {self.node.read('/run/lab/service.log')[-500:]}")
            return Numbers(0, 0)
        status = self.node.read(f"/proc/{pid}/status")
        fds = len(os.listdir(self.node.path(f"/proc/{pid}/fd")))
        return Numbers(fds, int(status.partition("VmRSS:")[2].split()[0]))

    def judge_end(self) -> Numbers:
        """Nothing is left growing, and the audit stream names nobody in another's job."""
        kill_all(self.node, "slurm-adopt/helper", signal.SIGCONT)
        left = "slurm-adopt/helper"

        def quiet() -> bool:
            commands = [p.command for p in self.node.processes()]
            return not any(left in command or command.startswith("sshd: user") for command in commands)

        try:
            wait_for(quiet, "the last logins to end", 60, 0.5)
        except Exception:
            shown = [p.command for p in self.node.processes() if left in p.command or p.command.startswith("sshd: ")]
            self.watch.violations.append(f"processes are left: {shown}")
        self.watch.stop()
        self.people.learn()
        return self.numbers()

    def judge_numbers(self, before: Numbers, after: Numbers) -> None:
        """A service that has been used holds no more than a new one."""
        if not (before.memory_kib and after.memory_kib):
            return
        if after.descriptors > before.descriptors + MORE_DESCRIPTORS:
            self.watch.violations.append(f"descriptors of the service: {before.descriptors} → {after.descriptors}")
        if after.memory_kib > before.memory_kib + MORE_KIB:
            self.watch.violations.append(f"memory of the service: {before.memory_kib} → {after.memory_kib} KiB")

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
            if event["uid"] not in self.people.owners_of.get(event["job"], {event["uid"]}):
                self.watch.violations.append(f"the audit stream says: {line}")
            if f"job_{event['job']}/" not in event["where"] + "/" and event["where"]:
                self.watch.violations.append(f"the audit stream's job and place differ: {line}")
        return count


def report(
    torture: Torture, seed: int, seconds: float, before: Numbers, after: Numbers, lines: int, events: int
) -> str:
    """Markdown."""
    times = sorted(torture.durations_s)
    told = [
        f"* {seconds / 60:.1f} minutes, seed {seed}, Slurm {torture.node.slurm_version}, cgroup v{torture.node.tree.version}, "
        f"{torture.workers} logins at a time, `timeout={TIMEOUT_S}`",
        f"* {len(times)} logins of {len(torture.people.everybody)} users besides root's: "
        + ", ".join(f"{what} {count}" for what, count in sorted(torture.outcomes.items())),
        f"* {torture.people.submitted} jobs submitted; {sum(torture.faults.values())} faults: "
        + ", ".join(f"{what} {count}" for what, count in sorted(torture.faults.items())),
        f"* a login took {times[len(times) // 2]:.2f} s at the median, {times[-1]:.2f} s at most (client's view); "
        f"the module at most {torture.watch.longest_ms} ms in {lines} lines of the log",
        f"* the watch looked {torture.watch.looks} times and judged {torture.watch.processes_seen} processes of users",
        f"* audit stream: {events} admitted logins",
        f"* service: {before.descriptors} → {after.descriptors} descriptors, {before.memory_kib} → {after.memory_kib} KiB, "
        f"started {torture.service.starts} times",
        f"* **{len(torture.watch.violations)} violations**",
    ]
    told += [f"    * {violation}" for violation in torture.watch.violations[:40]]
    told += [f"* the rig failed: {what}" for what in torture.broken]
    return "\n".join(told)


def main() -> int:
    """The exit status: 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="default: a new one")
    parser.add_argument("--workers", type=int, default=6, help="logins at a time")
    args = parser.parse_args()
    seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    print(f"torture: {args.minutes} minutes, seed {seed}", flush=True)
    with Node(slurm={"SlurmdTimeout": "3600", "JobRequeue": "1"}) as node:
        torture = Torture(node, seed, args.workers)
        torture.prepare()
        before = torture.numbers()
        mark = node.log_mark()
        began = time.monotonic()
        torture.run(args.minutes * 60)
        seconds = time.monotonic() - began
        torture.recover()
        after = torture.judge_end()
        torture.judge_numbers(before, after)
        lines = torture.watch.judge_log(node.log_since(mark))
        print(report(torture, seed, seconds, before, after, lines, torture.judge_audit()))
        torture.service.end(signal.SIGTERM)
        node.run(["umount", "/run/lab/audit", SWITCH], check=False)
    return 1 if torture.watch.violations or torture.broken else 0


if __name__ == "__main__":
    sys.exit(main())
