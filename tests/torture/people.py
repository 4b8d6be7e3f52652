# SPDX-License-Identifier: Apache-2.0
"""Twenty users of several kinds, their jobs, and whose job is which."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from lab.accounts import password
from lab.machine import LabError
from lab.node import Node

FIRST_UID = 2001
TROUBLE = (LabError, subprocess.SubprocessError, OSError)
"""What may happen to a command on a node with a fault."""
#: States of a node that takes no jobs, in words of sinfo.
SICK = ("drain", "down", "fail")
#: A job that runs without its extern step for so long is given up; one that shall begin later begins now.
LOST_S, DELAYED_S = 45.0, 5.0
#: How many users there are of a kind, and how many jobs each has.
KINDS = {"nothing": (3, 0), "one": (8, 1), "several": (4, 2), "suspended": (2, 1), "short": (3, 1)}


class Person(NamedTuple):
    """One user."""

    name: str
    uid: int
    kind: str

    @property
    def jobs(self) -> int:
        """How many they should have."""
        return KINDS[self.kind][1]


class People:
    """The users of a node. `owners_of` says whose a job is, for every job that there ever was.

    A slurmctld that is killed before it has saved its state gives a number a second time (seen on 22.05.8).
    """

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.node = node
        self.chance = chance
        self.everybody: list[Person] = []
        self.owners_of: dict[int, set[int]] = {}
        self.submitted = 0
        self.suspended: dict[int, float] = {}
        """Jobs that a fault has stopped, and since when."""
        self.longest_stop_s: dict[int, float] = {}
        """For each uid: whatever its logins did, they may have stood still so long."""
        self.steps_stopped_s = float("-inf")
        """When slurmstepds were last stopped: what they were asked before they do afterwards."""
        self._unwell = Unwell()
        self._lock = threading.Lock()
        for kind, (count, _) in KINDS.items():
            for _ in range(count):
                number = len(self.everybody)
                self.everybody.append(Person(f"user{number:02d}", FIRST_UID + number, kind))

    @property
    def uids(self) -> dict[int, Person]:
        return {person.uid: person for person in self.everybody}

    def make_accounts(self) -> None:
        """Users whose passwords are known, who accept root's key, and whose own key is everybody's."""
        assert self.node.keys is not None
        lines = ["set -e"]
        for person in self.everybody:
            lines.append(f"useradd -m -u {person.uid} -s /bin/bash {person.name}")
            lines.append(f"echo {person.name}:{password(person.name)} | chpasswd")
            lines.append(f"install -d -m 700 -o {person.name} /home/{person.name}/.ssh")
        self.node.run("\n".join(lines), timeout=300)
        for person in self.everybody:
            folder, keys = f"/home/{person.name}/.ssh", self.node.keys
            self.node.write(f"{folder}/authorized_keys", keys.public["root"] + keys.public["alice"], 0o600)
            self.node.write(f"{folder}/id_ed25519", keys.private["alice"], 0o600)
            self.node.run(["chown", "-R", f"{person.name}:", folder])

    def keep_jobs(self) -> None:
        """Submit what is missing, cancel what is too much. Slurm may be away: then nothing happens this time."""
        try:
            asked = self.node.run(["squeue", "-h", "-o", "%A %U %T"], check=False, timeout=20)
        except TROUBLE:  # a slurmctld that hangs
            return
        if asked.returncode:
            return
        there: dict[int, list[int]] = {}
        for line in asked.stdout.splitlines():
            number, uid, state = line.split()
            self.owns(int(number), int(uid))
            if state != "COMPLETING":
                there.setdefault(int(uid), []).append(int(number))
        for person in self.everybody:
            jobs = sorted(there.get(person.uid, []))
            for _ in range(person.jobs - len(jobs)):
                self._submit(person)
            # an sbatch that was interrupted may have been heard
            for job in jobs[person.jobs :]:
                self._try(["scancel", str(job)])

    def _try(self, argv: Sequence[str]) -> str:
        """What a command prints, nothing if it fails."""
        try:
            done = self.node.run(argv, check=False, timeout=20)
        except TROUBLE:
            return ""
        return "" if done.returncode else done.stdout

    def _submit(self, person: Person) -> None:
        # the others' outlast the run: at the end nobody is refused whose job has just come to its end
        seconds = self.chance.randrange(5, 30) if person.kind == "short" else 100_000
        argv = ["sbatch", "--parsable", f"--uid={person.uid}", f"--gid={person.uid}", "--output=/dev/null", "-n1"]
        argv += ["--chdir=/", "--requeue", f"--wrap=sleep {seconds}"]
        # slurmctld may have taken the job even if sbatch was not told so: see learn()
        if (told := self._try(argv).strip()).isdigit():
            self.owns(int(told), person.uid)
            self.submitted += 1

    def owns(self, job: int, uid: int) -> None:
        """From now on, and for ever."""
        with self._lock:
            self.owners_of.setdefault(job, set()).add(uid)

    def learn(self) -> None:
        """Jobs whose sbatch was interrupted: slurmctld's own list."""
        for line in self._try(["squeue", "-h", "-t", "all", "-o", "%A %U"]).splitlines():
            job, uid = map(int, line.split())
            self.owns(job, uid)

    def stops(self, job: int) -> None:
        """A fault suspends this job."""
        self.suspended[job] = time.monotonic()

    def goes_on(self, job: int) -> None:
        """The fault is over."""
        stopped_s = time.monotonic() - self.suspended.pop(job)
        for uid in self.owners_of[job]:
            self.longest_stop_s[uid] = max(stopped_s, self.longest_stop_s.get(uid, 0.0))

    def mend_jobs(self) -> None:
        """Help Slurm with what faults leave behind: jobs that are suspended, held back or lost, a node that is drained."""
        shown = self._try(["squeue", "-h", "-o", "%A %T %r"])
        jobs = {
            int(words[0]): (words[1], words[2]) for line in shown.splitlines() if len(words := line.split(None, 2)) == 3
        }
        for argv in self._unwell.remedies(jobs, self.suspended, self.node.extern_runs, time.monotonic()):
            self._try(argv)
        if any(word in self._try(["sinfo", "-h", "-o", "%T"]) for word in SICK):
            self._try(["scontrol", "update", f"NodeName={self.node.node_name}", "State=RESUME"])

    def running_uids(self) -> list[int]:
        """Whose jobs run, one for each job."""
        shown = self.node.run(["squeue", "-h", "-t", "running", "-o", "%U"], check=False, timeout=60).stdout
        return [int(line) for line in shown.split()]

    def some_job(self, chance: random.Random, kind: str = "") -> int:
        """A job of now, 0 if there is none."""
        wanted = {person.uid for person in self.everybody if kind in ("", person.kind)}
        with self._lock:
            jobs = [job for job, uids in self.owners_of.items() if uids & wanted][-20:]
        return chance.choice(jobs) if jobs else 0


class Unwell:
    """What is wrong with jobs, and since when."""

    def __init__(self) -> None:
        self._lost: dict[int, float] = {}
        self._delayed: dict[int, float] = {}

    def remedies(
        self,
        jobs: Mapping[int, tuple[str, str]],
        suspended: Collection[int],
        extern_runs: Callable[[int], bool],
        now: float,
    ) -> Iterator[list[str]]:
        """Commands that help. `jobs`: state and reason of each, as squeue says. `suspended`: those that shall be.

        A job that waits for its time after a requeue is told once to begin, and not at once: slurmctld counts anew each
        time, and slurmd would take the new credential for the old one's.
        """
        lost = {
            job
            for job, (state, _) in jobs.items()
            if state == "RUNNING" and job not in suspended and not extern_runs(job)
        }
        delayed = {job for job, (state, reason) in jobs.items() if state == "PENDING" and reason == "BeginTime"}
        self._lost = {job: self._lost.get(job, now) for job in lost}
        self._delayed = {job: self._delayed.get(job, now) for job in delayed}
        for job, (state, reason) in jobs.items():
            if state == "SUSPENDED" and job not in suspended:
                yield ["scontrol", "resume", str(job)]
            elif state == "PENDING" and "held" in reason.lower():
                yield ["scontrol", "release", str(job)]
            elif now - self._lost.get(job, now) > LOST_S:
                yield ["scancel", str(job)]
            elif now - self._delayed.get(job, now) > DELAYED_S:
                self._delayed[job] = float("inf")
                yield ["scontrol", "update", f"JobId={job}", "StartTime=now"]
