# SPDX-License-Identifier: Apache-2.0
"""Twenty users of several kinds, their jobs, and whose job is which."""

from __future__ import annotations

import random
import subprocess
import threading
from typing import NamedTuple

from lab.accounts import password
from lab.node import Node

FIRST_UID = 2001
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
        self._lock = threading.Lock()
        for kind, (count, _) in KINDS.items():
            for _ in range(count):
                number = len(self.everybody)
                self.everybody.append(Person(f"user{number:02d}", FIRST_UID + number, kind))

    @property
    def uids(self) -> dict[int, Person]:
        return {person.uid: person for person in self.everybody}

    def make_accounts(self) -> None:
        """Users whose passwords are known and who accept root's key."""
        assert self.node.keys is not None
        lines = ["set -e"]
        for person in self.everybody:
            lines.append(f"useradd -m -u {person.uid} -s /bin/bash {person.name}")
            lines.append(f"echo {person.name}:{password(person.name)} | chpasswd")
            lines.append(f"install -d -m 700 -o {person.name} /home/{person.name}/.ssh")
        self.node.run("\n".join(lines), timeout=300)
        for person in self.everybody:
            path = f"/home/{person.name}/.ssh/authorized_keys"
            self.node.write(path, self.node.keys.public["root"], 0o600)
            self.node.run(["chown", f"{person.name}:", path])

    def keep_jobs(self) -> None:
        """Submit what is missing. Slurm may be away: then nothing happens this time."""
        try:
            shown = self.node.run(["squeue", "-h", "-o", "%A %U %T"], check=False, timeout=20).stdout
        except Exception:  # a slurmctld that hangs
            return
        there: dict[int, int] = {}
        for line in shown.splitlines():
            there[int(line.split()[1])] = there.get(int(line.split()[1]), 0) + 1
        for person in self.everybody:
            for _ in range(person.jobs - there.get(person.uid, 0)):
                self._submit(person)

    def _submit(self, person: Person) -> None:
        seconds = self.chance.randrange(5, 30) if person.kind == "short" else 3000
        argv = ["sbatch", "--parsable", f"--uid={person.uid}", f"--gid={person.uid}", "--output=/dev/null", "-n1"]
        argv += ["--chdir=/", "--requeue", f"--wrap=sleep {seconds}"]
        try:
            done = self.node.run(argv, check=False, timeout=20)
        except Exception:
            return
        # the kernel of Slurm may have taken the job even if sbatch was not told so: see learn()
        if done.stdout.strip().isdigit():
            self.owns(int(done.stdout), person.uid)
            self.submitted += 1

    def owns(self, job: int, uid: int) -> None:
        """From now on, and for ever."""
        with self._lock:
            self.owners_of.setdefault(job, set()).add(uid)

    def learn(self) -> None:
        """Jobs whose sbatch was interrupted: slurmctld's own list."""
        try:
            shown = self.node.run(["squeue", "-h", "-t", "all", "-o", "%A %U"], check=False, timeout=20).stdout
        except Exception:
            return
        for line in shown.splitlines():
            job, uid = map(int, line.split())
            self.owns(job, uid)

    def mend_jobs(self) -> None:
        """Let go on what Slurm has stopped or holds back."""
        try:
            shown = self.node.run(["squeue", "-h", "-o", "%A %T %r"], check=False, timeout=20).stdout
            for line in shown.splitlines():
                job, state, reason = line.split(None, 2)
                if state == "SUSPENDED":
                    self.node.run(["scontrol", "resume", job], check=False, timeout=20)
                if state == "PENDING" and "held" in reason.lower():
                    self.node.run(["scontrol", "release", job], check=False, timeout=20)
        except subprocess.TimeoutExpired:
            return

    def running_uids(self) -> list[int]:
        """Whose jobs run, one for each job."""
        shown = self.node.run(["squeue", "-h", "-t", "running", "-o", "%U"], check=False, timeout=60).stdout
        return [int(line) for line in shown.split()]

    def some_job(self, kind: str = "") -> int:
        """A job of now, 0 if there is none."""
        wanted = {person.uid for person in self.everybody if kind in ("", person.kind)}
        jobs = [job for job, uids in list(self.owners_of.items()) if uids & wanted][-20:]
        return self.chance.choice(jobs) if jobs else 0
