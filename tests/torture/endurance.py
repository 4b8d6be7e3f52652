# SPDX-License-Identifier: Apache-2.0
"""`make endurance LOGINS=100000 JOBS=1000`: what a service and a node hold after many logins and jobs.

Logins come through libpam, account and session phase in a process each (`crowd.c`), without sshd: hundreds a second.
Jobs are real, and begin and end all the time; every few thousand logins all is quiet for a moment, and a sample is taken.
Then come steps that are only sockets (`fake_steps.py`), ten thousand of them.

Rules of this file:
1. It knows from its own submissions whose job is which, and from the kernel where a login was.
2. What is compared is compared when all is quiet: the numbers of the service with the sockets that there are, what it
   has counted with what was tried.
3. Nothing here has a limit of time but the login's own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("", "tools")]

from tests.torture.stage import Service  # noqa: E402

from lab.machine import LabError, wait_for  # noqa: E402
from lab.node import Node  # noqa: E402
from lab.product import install_product  # noqa: E402
from lab.root import cache_dir  # noqa: E402

TIMEOUT_S = 30
GRACE_S = 5.0
LINE = f"required pam_slurm_adopt.so service=* profile=strict timeout={TIMEOUT_S}"
#: The first line is what a stack needs in which ours ignores (root).
STACK = f"account required pam_permit.so\naccount {LINE}\nsession required pam_permit.so\nsession {LINE}\n"
AT_ONCE = 8
FIRST_UID = 2001
#: How many users there are of a kind, and how many jobs each has; those of the last kind come and go.
KINDS = {"no job": (12, 0), "one job": (12, 1), "two jobs": (4, 2), "jobs that come and go": (12, 0)}
COMING = "jobs that come and go"
#: Jobs under way of those that come and go, at most.
UNDER_WAY = 24
FIRST_FAKE_JOB = 5_000_000
FAKES_ALIVE, FAKES_A_ROUND = 200, 100
#: A login gives up after so many steps that do not take it (docs/how-it-works.md).
TRIED_STEPS = 4
PERM_DENIED = 6
REFUSED_RIGHTLY = ("no-job", "job-ending", "job-starting", "adopt-failed")
#: What a service may hold more at the end than after its first tenth: sshd's own numbers vary as much.
MORE_KIB, MORE_DESCRIPTORS = 2048, 2
RUN_FILE_CAP = 1 << 20
USER_FOLDER = re.compile(r"/uid_\d+$")
JOB_FOLDER = re.compile(r"/job_(\d+)(?:/|$)")
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Login(NamedTuple):
    """A line of crowd's."""

    uid: int
    account: int
    session: int
    job: int
    variable: int
    ms: int
    signal: int


class Sample(NamedTuple):
    """What was there at a quiet moment."""

    logins: int
    jobs: int
    seconds: float
    memory_kib: int
    descriptors: int
    run_files: dict[str, int]
    sockets: int
    known: int
    unknown: int
    cgroups: int
    left: int
    """Cgroups of jobs that have ended; nobody is in them."""
    processes: int


class Endurance:
    """One run."""

    def __init__(self, node: Node, seed: int, chunk: int, rest_while: Sequence[Path] = ()) -> None:
        self.node = node
        self.rest_while = rest_while
        self.seed = seed
        self.chunk = chunk
        self.chance = random.Random(seed)
        self.service = Service(node, "/run/lab/audit-log")
        self.kind_of: dict[int, str] = {}
        for kind, (count, _) in KINDS.items():
            for _ in range(count):
                self.kind_of[FIRST_UID + len(self.kind_of)] = kind
        self.owner_of: dict[int, int] = {}
        self.logins: list[Login] = []
        self.kept: list[int] = []
        """Jobs that do not end by themselves."""
        self.samples: list[Sample] = []
        self.violations: list[str] = []
        self.denials: list[dict[str, Any]] = []
        """Refusals in the audit stream for which there was no reason that is expected here."""
        self.outcomes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        """What the service has counted of `logins`, by verdict."""
        self.fake_steps = 0
        self._pause, self._over = threading.Event(), threading.Event()
        self._resting = threading.Event()
        self._broken: list[str] = []

    # The node ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Accounts, both programs, the service, and its first login."""
        install_product(self.node)
        names = "".join(f"useradd -M -s /bin/sh -u {uid} {self.name(uid)}\n" for uid in self.kind_of)
        self.node.run(f"set -e\n{names}", timeout=300)
        program = cache_dir() / "builds" / "crowd"
        source = Path(__file__).with_name("crowd.c")
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]
        subprocess.run(["cc", *flags, "-o", program, source, "-lpam"], check=True)
        self.node.install(program, "/run/lab/crowd", 0o755)
        self.node.install(Path(__file__).with_name("fake_steps.py"), "/run/lab/fake_steps.py")
        self.node.write("/etc/pam.d/crowd", STACK)
        self.service.start()
        wait_for(lambda: self.node.path("/run/slurm-adopt/login.sock").exists(), "the service's socket")

    def name(self, uid: int) -> str:
        return f"crowd{uid}"

    def crowd(self, count: int, uids: Sequence[int], seed: int) -> list[Login]:
        """So many logins; seed 0: one after the other in this order."""
        users = [f"{self.name(uid)}:{uid}" for uid in uids]
        argv = ["/run/lab/crowd", "crowd", str(count), str(AT_ONCE if seed else 1), str(seed), *users]
        told = self.node.run(argv, timeout=count * TIMEOUT_S).stdout
        found = [Login(*map(int, line.split())) for line in told.splitlines()]
        if len(found) != count:
            raise LabError(f"{len(found)} of {count} logins came back")
        return found

    # Jobs --------------------------------------------------------------------------------------------

    def submit(self, uids: Sequence[int], script: str) -> list[int]:
        """One job for each; they are known before they can begin to matter: by the next quiet moment."""
        options = "--parsable --output=/dev/null --chdir=/ -n1 --uid=$u --gid=$u"
        loop = f'for u in {" ".join(map(str, uids))}; do echo $u $(sbatch {options} --wrap="{script}"); done'
        found = []
        for line in self.node.run(loop, timeout=600).stdout.splitlines():
            uid, _, job = line.partition(" ")
            self.owner_of[int(job)] = int(uid)
            found.append(int(job))
        return found

    def renew_kept(self) -> None:
        """New jobs for those who keep theirs: a slurmstepd gets slower with every process that it takes in."""
        old, self.kept = self.kept, []
        if old:
            self.node.run(["scancel", *map(str, old)])
        uids = [uid for uid, kind in self.kind_of.items() for _ in range(KINDS[kind][1])]
        self.kept = self.submit(uids, "exec sleep 100000")
        self.node.wait_started(self.kept, 600)
        self._wait_sockets()

    def sockets(self) -> int:
        """Of extern steps."""
        return len(self._sockets())

    def _sockets(self) -> list[Path]:
        return list(self.node.path(self.node.spool_dir).glob("*.4294967292"))

    def _wait_sockets(self) -> None:
        try:
            wait_for(lambda: self.sockets() == len(self.kept), "the other jobs to end", 600, 0.1)
        except LabError as error:
            others = {job_of(path) for path in self._sockets()} - set(self.kept)
            raise LabError(f"{error}\n{''.join(self._told_of(job) for job in sorted(others)[:4])}") from None

    def _told_of(self, job: int) -> str:
        """What Slurm, the kernel and slurmd's log say of a job that does not end."""
        shown = self.node.run(["scontrol", "-o", "show", "job", str(job)], check=False).stdout
        inside = [processes_in(folder) for folder in cgroups_below(self.node) if f"/job_{job}/" in f"{folder}/"]
        processes = [f"{p.pid} {p.command}" for p in self.node.processes() if f"[{job}." in p.command]
        log = [line for line in self.node.read("/var/log/slurm/slurmd.log").splitlines() if f"{job}.extern" in line]
        return "\n".join([shown, f"processes {processes}, in its cgroups {inside}", *log[-40:], ""])

    def _come_and_go(self) -> None:
        uids = [uid for uid, kind in self.kind_of.items() if kind == COMING]
        try:
            while not self._over.is_set():
                if self._pause.is_set():
                    self._resting.set()
                    self._over.wait(0.05)
                    continue
                self._resting.clear()
                if self.sockets() < len(self.kept) + UNDER_WAY:
                    some = self.chance.sample(uids, 4)
                    self.submit(some, f"exec sleep {self.chance.choice(('0.2', '1', '2'))}")
                self._over.wait(0.02)
        except Exception as error:
            self._broken.append(f"the jobs that come and go: {error!r}")
        finally:
            self._resting.set()

    # The run -----------------------------------------------------------------------------------------

    def run(self, logins: int, jobs: int, seconds: float) -> None:
        """Until there were as many of both, or the time is over."""
        began = time.monotonic()
        self.renew_kept()
        self.crowd(4, list(self.kind_of)[:4], 0)  # what a service loads once
        worker = threading.Thread(target=self._come_and_go)
        self.sample(0.0)
        worker.start()
        try:
            while len(self.logins) < logins or len(self.owner_of) < jobs:
                if self._broken or time.monotonic() - began > seconds:
                    break
                while any(path.exists() for path in self.rest_while):
                    time.sleep(1)
                self._pause.clear()
                before = self.counted()
                self.logins += self.crowd(self.chunk, list(self.kind_of), self.chance.randrange(1, 1 << 31))
                self.counts += self.counted() - before
                self._pause.set()
                self._resting.clear()
                wait_for(self._resting.is_set, "the jobs that come and go to rest", 600, 0.02)
                self.renew_kept()
                self.sample(time.monotonic() - began)
                print(row_of(self.samples[-1]), flush=True)
        finally:
            self._over.set()
            worker.join()
        if self._broken:
            raise LabError("; ".join(self._broken))

    def metrics(self) -> dict[tuple[str, str], float]:
        """The service's own numbers."""
        text = self.node.run(["slurm-adopt", "metrics"]).stdout
        return {(name, labels): float(value) for name, labels, value in SAMPLE.findall(text)}

    def counted(self) -> Counter[str]:
        """Account phases that the service has counted, by verdict, its own and the one-shot helpers'."""
        found: Counter[str] = Counter()
        for (name, labels), value in self.metrics().items():
            if name == "slurm_adopt_logins_total" and 'phase="account"' in labels:
                verdict = re.search(r'verdict="(\w+)"', labels)
                found[verdict[1] if verdict else "?"] += int(value)
        return found

    def sample(self, seconds: float) -> None:
        """Once all is quiet."""
        steps = self._settle(self.sockets())
        pid = wait_for(lambda: self.service.pid, "the service")
        status = self.node.read(f"/proc/{pid}/status")
        top = self.node.path("/run/slurm-adopt")
        cgroups, left = self._cgroups()
        files = {str(path.relative_to(top)): path.lstat().st_size for path in sorted(top.rglob("*"))}
        self.samples.append(
            Sample(
                len(self.logins),
                len(self.owner_of),
                seconds,
                int(status.partition("VmRSS:")[2].split()[0]),
                len(os.listdir(self.node.path(f"/proc/{pid}/fd"))),
                files,
                self.sockets(),
                steps["known"],
                steps["unknown"],
                cgroups,
                left,
                len(self.node.processes()),
            )
        )

    def _cgroups(self) -> tuple[int, int]:
        """How many there are, and how many more are of jobs that have ended.

        A slurmstepd that is asked to take somebody in while it removes its cgroups makes one again, says no, and ends
        (22.05). It is empty; somebody in it would be a session that has outlived its job.
        """
        running = {job_of(path) for path in self._sockets()}
        jobs = {folder: JOB_FOLDER.search(folder) for folder in cgroups_below(self.node)}
        ended = [folder for folder, job in jobs.items() if job is not None and int(job[1]) not in running]

        def inside() -> list[str]:
            return [folder for folder in ended if processes_in(folder)]

        try:
            wait_for(lambda: not inside(), "slurmstepds that end", 30, 0.1)
        except LabError:
            self.violations.append(f"after {len(self.logins)} logins, their jobs have ended: somebody in {inside()}")
        users = sum(USER_FOLDER.search(folder) is not None for folder in jobs)  # stay as long as one of theirs is left
        return len(jobs) - users - len(ended), sum(Path(folder).exists() for folder in ended)

    # Steps that are only sockets -----------------------------------------------------------------------

    def drive_index(self, count: int) -> None:
        """So many steps begin and end; after each round every user logs in, and asks their own steps and no other."""
        self.node.run(["scancel", *map(str, self.kept)])
        self.kept = []
        self._wait_sockets()
        self.node.slurmd.stop()  # it would ask them as well
        argv = ["/usr/bin/python3", "-IS", "/run/lab/fake_steps.py", self.node.spool_dir, self.node.node_name]
        uids = list(self.kind_of)
        alive: dict[int, int] = {}
        with self.node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as fakes:
            assert fakes.stdin is not None
            assert fakes.stdout is not None

            def tell(begin: dict[int, int], end: Sequence[int]) -> Any:
                print(json.dumps({"begin": list(begin.items()), "end": list(end)}), file=fakes.stdin, flush=True)
                return json.loads(fakes.stdout.readline())

            while self.fake_steps < count:
                ending = self.chance.sample(
                    sorted(alive), min(FAKES_A_ROUND, max(0, len(alive) - FAKES_ALIVE + FAKES_A_ROUND))
                )
                new = {
                    FIRST_FAKE_JOB + self.fake_steps + number: self.chance.choice(uids[: len(uids) * 3 // 4])
                    for number in range(min(FAKES_A_ROUND, count - self.fake_steps))
                }
                self.fake_steps += len(new)
                for job in ending:
                    del alive[job]
                alive.update(new)
                self._judge_round(alive, tell(new, ending), uids, lambda: tell({}, ()))
            tell({}, list(alive))
            fakes.stdin.close()
        self.node.slurmd.start()

    def _judge_round(self, alive: dict[int, int], told: Any, uids: Sequence[int], tell: Any) -> None:
        if told["alive"] != len(alive):
            raise LabError(f"{told['alive']} sockets instead of {len(alive)}")
        self._settle(len(alive))
        tell()
        logins = self.crowd(len(uids), uids, 0)
        asked = Counter(alive.get(job, 0) for job in tell()["added"])
        wanted = Counter({uid: min(count, TRIED_STEPS) for uid, count in Counter(alive.values()).items()})
        if asked != wanted:
            self.violations.append(
                f"after {self.fake_steps} steps: asked by user {asked - wanted}, not asked {wanted - asked}"
            )
        for login in logins:
            if login.account != PERM_DENIED:
                self.violations.append(f"nobody is in a step that takes nobody in: {login}")

    def _settle(self, count: int) -> dict[str, int]:
        """Until the service knows of so many steps whose they are. One login makes it look at its directory."""
        nobody = next(iter(self.kind_of))

        def settled() -> dict[str, int] | None:
            self.crowd(1, [nobody], 0)
            numbers = self.metrics()
            owners = ("known", "unknown")
            steps = {owner: int(numbers.get(("slurm_adopt_steps", f'owner="{owner}"'), 0)) for owner in owners}
            return steps if steps == {"known": count, "unknown": 0} else None

        try:
            found: dict[str, int] = wait_for(settled, f"the index to have {count} steps", 60, 0.2)
            return found
        except LabError as error:
            self.violations.append(f"after {len(self.logins)} logins and {self.fake_steps} steps: {error}")
            return {"known": -1, "unknown": -1}

    # Judging -----------------------------------------------------------------------------------------

    def judge(self) -> None:
        """What was noted, when everything is known."""
        for login in self.logins:
            self._judge_login(login)
        self._judge_counts()
        if len(self.samples) < 3:
            return
        first, last = self.samples[len(self.samples) // 10 + 1], self.samples[-1]
        if last.memory_kib - first.memory_kib > MORE_KIB:
            self.violations.append(f"memory grew from {first.memory_kib} to {last.memory_kib} KiB")
        if last.descriptors - first.descriptors > MORE_DESCRIPTORS:
            self.violations.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
        if new := last.run_files.keys() - first.run_files.keys():
            self.violations.append(f"files that were not there: {sorted(new)[:20]}")
        if large := {name: size for name, size in last.run_files.items() if size > RUN_FILE_CAP}:
            self.violations.append(f"large files: {large}")
        cgroups = max(sample.cgroups for sample in self.samples[self.samples.index(first) :])
        if cgroups > first.cgroups or last.processes > first.processes + 2:
            self.violations.append(
                f"cgroups {first.cgroups} → {cgroups}, processes {first.processes} → {last.processes}"
            )

    def _judge_counts(self) -> None:
        """What the service has counted is what was tried; of a login that was killed it may have heard or not."""
        made = Counter("allow" if login.account == 0 else "deny" for login in self.logins if not login.signal)
        killed = sum(login.signal != 0 for login in self.logins)
        more = {verdict: self.counts[verdict] - made[verdict] for verdict in self.counts | made}
        if min(more.values(), default=0) < 0 or sum(more.values()) > killed:
            self.violations.append(f"counted: {dict(self.counts)}; tried: {dict(made)}, and killed {killed}")

    def _judge_login(self, login: Login) -> None:
        kind = self.kind_of[login.uid]
        if login.signal:
            self.outcomes[f"{kind}: ended with the job"] += 1
            if kind != COMING or login.signal != signal.SIGKILL:
                self.violations.append(f"{kind}: a login was killed: {login}")
            return
        admitted = login.account == 0 and login.session == 0
        self.outcomes[f"{kind}: {'admitted' if admitted else 'refused'}"] += 1
        if kind == "no job" and login.account == 0:
            self.violations.append(f"somebody without a job was admitted: {login}")
        if kind in ("one job", "two jobs") and not admitted:
            self.violations.append(f"somebody with a job was refused: {login}")
        if login.ms > (TIMEOUT_S + GRACE_S) * 1000:
            self.violations.append(f"decided after {login.ms} ms: {login}")
        # where a job has just ended its step's cgroup may be gone: then the process is dying, too
        if admitted and not (login.job == login.variable and self.owner_of.get(login.job) == login.uid):
            self.violations.append(f"admitted, and not in their own job: {login}, of {self.owner_of.get(login.job)}")

    def judge_audit(self) -> Counter[str]:
        """The audit stream's events by kind; each admission is in a job of its user."""
        found: Counter[str] = Counter()
        with self.node.path("/run/lab/audit-log").open() as lines:
            for line in lines:
                event = json.loads(line)
                found[event["event"]] += 1
                if event["event"] == "login" and event["verdict"] == "deny" and event["reason"] not in REFUSED_RIGHTLY:
                    self.denials.append(event)
                if event["event"] == "login" and event["verdict"] == "allow":
                    found["admissions"] += 1
                    if self.owner_of.get(event["job"]) != event["uid"]:
                        self.violations.append(f"the audit stream says: {line.strip()}")
        return found


def cgroups_below(node: Node) -> Iterator[str]:
    """Of the node's jobs and of everything else in it."""
    for mount in node.path("/sys/fs/cgroup").iterdir():
        if mount.is_dir() and not mount.is_symlink():
            for folder, _, _ in os.walk(mount):
                yield folder


def job_of(socket: Path) -> int:
    """Of a step's socket: `NODE_JOB.STEP`."""
    return int(socket.name.rpartition("_")[2].partition(".")[0])


def processes_in(folder: str) -> list[str]:
    """Of a cgroup, which may be gone."""
    try:
        return Path(folder, "cgroup.procs").read_text().split()
    except OSError:
        return []


HEAD = "| logins | jobs | seconds | memory, KiB | descriptors | files in /run | sockets | known | unknown | cgroups | left |"


def row_of(sample: Sample) -> str:
    """Of the table."""
    cells = [sample.logins, sample.jobs, round(sample.seconds), sample.memory_kib, sample.descriptors]
    cells += [len(sample.run_files), sample.sockets, sample.known, sample.unknown, sample.cgroups, sample.left]
    return "| " + " | ".join(map(str, cells)) + " |"


def report(run: Endurance, events: Counter[str]) -> str:
    """Markdown."""
    times = sorted(login.ms for login in run.logins if not login.signal)
    last = run.samples[-1]
    told = [
        f"* {len(run.logins)} logins of {len(run.kind_of)} users, {AT_ONCE} at a time, {len(run.owner_of)} real jobs, "
        f"{last.seconds:.0f} s, seed {run.seed}, Slurm {run.node.slurm_version}, cgroup v{run.node.tree.version}",
        "* " + ", ".join(f"{what} {count}" for what, count in sorted(run.outcomes.items())),
        f"* account phase: {times[len(times) // 2]} ms at the median, {times[len(times) * 99 // 100]} ms at the 99th "
        f"percentile, {times[-1]} ms at most",
        f"* {run.fake_steps} steps that were only sockets, {FAKES_ALIVE} at a time",
        f"* files in /run/slurm-adopt at the end: {', '.join(f'{n} ({size})' for n, size in last.run_files.items())}",
        f"* audit stream: {', '.join(f'{what} {count}' for what, count in sorted(events.items()))}",
        f"* the service was started {run.service.starts} time(s)",
        f"* **{len(run.violations)} violations**",
        *(f"    * {violation}" for violation in run.violations[:40]),
        *(f"    * refused: {json.dumps(event)}" for event in run.denials[:20]),
        "",
        HEAD,
        "| --- " * (HEAD.count("|") - 1) + "|",
        *(row_of(sample) for sample in run.samples),
    ]
    return "\n".join(told)


def main() -> int:
    """The exit status: 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="make endurance", description=__doc__)
    parser.add_argument("--logins", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1_000, help="real ones")
    parser.add_argument("--steps", type=int, default=10_000, help="that are only sockets")
    parser.add_argument("--minutes", type=float, default=120, help="begin no more logins after so long")
    parser.add_argument("--chunk", type=int, default=5_000, help="logins between two samples")
    parser.add_argument("--rest-while", type=Path, action="append", default=[], help="while this file is there (again)")
    parser.add_argument("--seed", type=int, default=0, help="default: a new one")
    args = parser.parse_args()
    seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    print(f"endurance: {args.logins} logins, {args.jobs} jobs, {args.steps} steps, seed {seed}", flush=True)
    with Node() as node:
        run = Endurance(node, seed, args.chunk, args.rest_while)
        run.prepare()
        run.run(args.logins, args.jobs, args.minutes * 60)
        run.drive_index(args.steps)
        run.sample(run.samples[-1].seconds)
        run.service.end(signal.SIGTERM)
        events = run.judge_audit()
        run.judge()
        print(report(run, events))
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
