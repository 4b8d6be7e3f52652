# SPDX-License-Identifier: Apache-2.0
"""What must hold at every moment, as the kernel shows it.

1. A process of a user of ours is in a job of that user: none outside, none in somebody else's.
2. A session that was admitted was in a job of its user when it began, and the job's number it was given is that one.
3. A user who has never had a job is never admitted.
4. Root always is.
5. Nothing is decided later than its deadline (`GRACE_S` for what a busy machine adds).
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

from tests.torture.people import People

#: The host's processors are shared; what is meant is that nobody waits for another time limit after this one.
GRACE_S = 5.0
#: A slurmstepd that was stopped may do so long afterwards what it was asked before.
LATE_S = 30.0
V1_STEP = re.compile(r"/slurm[^/]*/uid_(\d+)/job_(\d+)/step_([^/\n]+)")
V2_STEP = re.compile(r"slurmstepd\.scope/job_(\d+)/step_([^/\n]+)/user(?:/|$)", re.MULTILINE)
TIMED = re.compile(r"pam_slurm_adopt\(\S+\): .*\bms=(\d+)$")
#: Of the flags in /proc/PID/stat.
PF_EXITING = 0x4
MANAGED = re.compile(r"^MANAGED.*", re.MULTILINE)
USER = re.compile(r"\buser=\"?(\w+)")


def is_ending(stat: str) -> bool:
    """Whether this /proc/PID/stat, read after its cgroups, is that of a process that is ending: /proc/PID/cgroup of cgroup v1
    says `/` for it while it still has its memory and its command line (PF_EXITING, Linux 6.18)."""
    fields = stat.rpartition(")")[2].split()
    return fields[0] in "ZX" or bool(int(fields[6]) & PF_EXITING)


class Watch:
    """The checker: a thread over /proc, and judges of sessions and of the log."""

    def __init__(self, people: People, timeout_s: float) -> None:
        self.people = people
        self.timeout_s = timeout_s
        self.violations: list[str] = []
        self.looks = self.processes_seen = 0
        self.late: list[str] = []
        """Sessions that a slurmstepd has taken in late, from another job of the user's."""
        self.failure = ""
        """What ended the watch."""
        self.longest_ms = 0
        self.unclear: dict[tuple[int, int], str] = {}
        """Who was in a job that we know as another user's, by uid and job: its number may have been given again."""
        self._over = threading.Event()
        self._namespace = os.stat(f"/proc/{people.node.init_pid}/ns/pid").st_ino
        self._thread = threading.Thread(target=self._watch)

    def start(self) -> None:
        """Look all the time from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _violation(self, what: str) -> None:
        self.violations.append(f"{time.strftime('%H:%M:%S')} {what}")

    # 1 ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            while not self._over.wait(0.2):
                self.looks += 1
                for name in os.listdir("/proc"):
                    if name.isdigit():
                        self._look_at(name)
        except Exception as error:
            self.failure = repr(error)

    def _look_at(self, pid: str) -> None:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            if uid not in self.people.uids or os.stat(f"/proc/{pid}/ns/pid").st_ino != self._namespace:
                return
            # before its cgroups: slurmstepd may move it and become another program in between
            program = os.readlink(f"/proc/{pid}/exe")
            cgroups = Path(f"/proc/{pid}/cgroup").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            stat = Path(f"/proc/{pid}/stat").read_text()
            uids = Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()[:4]
        except OSError:
            return
        if is_ending(stat) or not command:
            return
        if uids[0] == "0":
            return  # root's sshd reads a user's keys with that user's rights, before it asks PAM
        self.processes_seen += 1
        wrong = self._not_in_own_job(cgroups, uid)
        # slurmstepd becomes the user before the task's execve(), inside the job; one moment before it is in no step yet
        # (the program counts: a user may call a process anything)
        if wrong and not Path(program).name.startswith("slurmstepd"):
            shown = f"{command[:60].strip()}, uids {' '.join(uids)}, {stat.rpartition(')')[2].split()[:8]}, {cgroups!r}"
            self._violation(f"process {pid} of uid {uid} {wrong}: {shown}")

    def _not_in_own_job(self, cgroups: str, uid: int) -> str:
        """What is wrong with where a process is, empty if nothing."""
        found = {(int(owner), int(job)) for owner, job, _ in V1_STEP.findall(cgroups)}
        # (cgroup v2 does not name the owner)
        found |= {(uid, int(job)) for job, _ in V2_STEP.findall(cgroups)}
        if not found:
            return "is in no job"
        if {owner for owner, _ in found} != {uid}:
            return f"is in a job of another user: {sorted(found)}"
        for _, job in found:
            if not self._owns(uid, job):
                self.unclear.setdefault(
                    (uid, job), f"{time.strftime('%H:%M:%S')} uid {uid} is in job {job} of another user"
                )
        return ""

    def _owns(self, uid: int, job: int) -> bool:
        """Also true for a job that nobody has told us of yet: an sbatch that was interrupted."""
        return uid in self.people.owners_of.get(job, {uid})

    def judge_unclear(self, at_last: bool = False) -> None:
        """Ask Slurm whose these jobs are; a violation if it says the same when it is asked at last."""
        if self.unclear:
            self.people.learn()
        for (uid, job), what in list(self.unclear.items()):
            if self._owns(uid, job):
                del self.unclear[uid, job]
            elif at_last:
                self.violations.append(what)

    # 2, 3 and 4 ------------------------------------------------------------------------------------

    def judge_admitted(self, uid: int, kind: str) -> None:
        """A session that was admitted."""
        if kind == "nothing":
            self._violation(f"uid {uid} has never had a job and was admitted")

    def judge_session(self, uid: int, told: str, job_variable: str) -> None:
        """What an admitted session read of its own cgroups, and the SLURM_JOB_ID it was given."""
        wrong = self._not_in_own_job(told, uid)
        if wrong:
            self._violation(f"a session of uid {uid} {wrong}")
            return
        jobs = {job for _, job, _ in V1_STEP.findall(told)} | {job for job, _ in V2_STEP.findall(told)}
        if jobs == {job_variable}:
            return
        if time.monotonic() - self.people.steps_stopped_s < LATE_S:
            # all of them the user's own: the first one that was asked did it when the login had gone to the next one
            self.late.append(f"uid {uid} in {sorted(jobs)}, told {job_variable}")
        else:
            self._violation(f"a session of uid {uid} is in job {jobs} and was told {job_variable!r}")

    def judge_hostile(self, uid: int, output: str) -> None:
        """What a hostile session says it could do."""
        for line in MANAGED.findall(output):
            self._violation(f"a hostile session of uid {uid}: {line.strip()}")

    def judge_root(self, status: int, output: str) -> None:
        """Root's login."""
        if status != 0 or "in" not in output:
            self._violation(f"root was kept out: {status} {output[-200:]}")

    # 5 ---------------------------------------------------------------------------------------------

    def judge_log(self, lines: list[str]) -> int:
        """The module's lines; how many there were."""
        count = 0
        for line in lines:
            timed = TIMED.search(line)
            if timed is None:
                continue
            count += 1
            self.longest_ms = max(self.longest_ms, int(timed[1]))
            if int(timed[1]) > (self.timeout_s + GRACE_S + self._stood_still_s(line)) * 1000:
                self._violation(f"decided after {timed[1]} ms: {line[-300:]}")
        return count

    def _stood_still_s(self, line: str) -> float:
        """How long a login in this line may have been stopped with its job."""
        named = USER.search(line)
        uids = {person.uid for person in self.people.everybody if named and person.name == named[1]}
        return max((self.people.longest_stop_s.get(uid, 0.0) for uid in uids), default=0.0)
