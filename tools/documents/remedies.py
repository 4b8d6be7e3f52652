# SPDX-License-Identifier: Apache-2.0
"""What to look at for each reason code of `model.py`, for docs/guide/troubleshooting.md.

It stands here and not in the table itself: each login loads that, and no login reads this.
"""

from __future__ import annotations

#: Nothing is wrong.
FINE = (
    "adopted",
    "adopt-deferred",
    "would-adopt",
    "session-verified",
    "exempt",
    "other-service",
    "session-closed",
    "root",
    "user-jobs",
    "user-preference-set",
    "user-preference-cleared",
    "user-moved",
)
CONF_OWNER = (
    "`slurm-adopt doctor` names the file or folder, and the `chown` or `chmod` that mends it. `namei -l` of the "
    "path in the "
    "log shows the whole way to it"
)
STEPD = (
    "the slurmstepd of the user's job: `ps -o pid,stat,wchan:20,args -C slurmstepd` shows one that is stopped (T) "
    "or waits for "
    "a file system (D)"
)
PAM_STACK = "`slurm-adopt doctor` names the lines of the PAM file and where ours should stand"
LOAD = "the load of the node, a file system or name service that hangs, `timeout=`"

LOOK: dict[str, str] = {
    "session-readopted": (
        "nothing, if pam_systemd is in the stack on purpose, or the account phase said `adopt-deferred`. Else see what "
        "moves sessions: `slurm-adopt doctor`, and pam_cgroup or pam_systemd in /etc/pam.d"
    ),
    "session-not-ours": (
        "nothing, if another line is meant to let this user in. Else `slurm-adopt explain USER` and the "
        "`sufficient` lines of "
        "the account stack"
    ),
    "session-exempt": (
        "nothing, if another line is meant to let this user in. Else the jumps and `sufficient` lines before ours "
        "in the "
        "account stack"
    ),
    "no-job": (
        "`squeue -w NODE -u USER`: is the job running, and on this node? If it is, `slurm-adopt explain USER` says "
        "what this "
        "node sees; `PrologFlags=Contain` must have been set when the job started"
    ),
    "job-ending": "nothing. If the job stays in CG for long: the processes that do not end, the epilog",
    "job-starting": "how long the prolog takes; `prolog_wait=` and, beside it, `timeout=` let logins wait for it",
    "job-suspended": "`squeue -t S`; who has suspended it (gang scheduling, `scontrol suspend`)",
    "spool-dir-missing": (
        "whether slurmd has ever run here (a login node?), and whether slurm.conf is the one that it uses: "
        "`slurm-adopt doctor`"
    ),
    "steps-unresponsive": f"`unanswered=` says with which of the codes below. Then {STEPD}",
    "unknown-denied": (
        "`caller=` in the line says why caller ID found nothing; `action_unknown=newest` or `preferred` decides then"
    ),
    "unknown-allowed": (
        "`action_unknown=allow` lets logins stay outside of all jobs; `newest` or `preferred` puts them into one"
    ),
    "adopt-failed": (
        "`failed=JOB:CODE` in the line, and that code below; `slurm-adopt doctor --try-job ID` tries it again"
    ),
    "adopt-failed-allowed": (
        "as `adopt-failed`. Everybody who is let in like this has the whole node: `profile=strict` refuses instead"
    ),
    "user-manager-failed": (
        "`systemctl status user@UID.service`, and `detail=`: what systemd answered, or that it did not"
    ),
    "slurm-conf-missing": (
        "where slurm.conf is. slurmd's own is found while it runs; `slurm_conf=` on the PAM line names another place"
    ),
    "slurm-conf-lost": "the file that the log names: an include that is gone, a file system that is not mounted",
    "slurm-conf-unreadable": "the file that the log names: `ls -lZ`, `cat` as root; a root squash of NFS; SELinux",
    "slurm-conf-untrusted": CONF_OWNER,
    "slurm-conf-malformed": "the file and line that the log names",
    "spool-dir-untrusted": CONF_OWNER,
    "spool-dir-unreadable": (
        "the path that the log names: links in a circle, SELinux, a file system that is not mounted"
    ),
    "internal-error": "`detail=` in the line names the fault. Please report it, with that line",
    "deadline": f"{LOAD}; `slurm-adopt doctor` names daemons that hang",
    "step-gone": "nothing: a step that has ended leaves its socket for a moment, a slurmstepd that was killed for ever",
    "step-ending": "nothing",
    "step-suspended": "nothing; `squeue -t S` shows the job",
    "step-silent": STEPD,
    "step-closed": "slurmd's log (slurmstepd writes there): it may have crashed or ended just then",
    "step-malformed": (
        "whether Slurm is of a release that this version knows (20.11 to 26.05); slurmd's log. Please report it "
        "otherwise"
    ),
    "step-untrusted": (
        "who listens there: `ss -xlp` shows it. If it is no slurmstepd of root's (or SlurmdUser's), somebody has "
        "put a socket in its place"
    ),
    "step-elsewhere": (
        "whether sshd, or the service, runs in a container of its own: it must share slurmd's pid namespace"
    ),
    "step-foreign": (
        "the user's and the job's uid (`id USER`, `squeue -j ID -o %U`): do node and slurmctld agree on them?"
    ),
    "adopt-refused": (
        "slurmd's log, where slurmstepd says why; the job's cgroup (`cgroup.procs` that cannot be written)"
    ),
    "adopt-unconfirmed": (
        "what moves processes behind slurmstepd (cgrulesengd, a security agent), and whether ProctrackType is "
        "proctrack/cgroup"
    ),
    "step-untracked": "`ProctrackType=proctrack/cgroup` in slurm.conf; slurmd must be restarted, and jobs started anew",
    "process-changed": "nothing, if the client has gone away meanwhile. If it comes often, the log of sshd",
    "namespace-failed": "slurmd's log; the container plugin (`job_container.conf`, `namespace.yaml`)",
    "namespace-deferred": "the session line that is missing: keyboard-interactive logins join namespaces only there",
    "service-busy": (
        "nothing, if it is rare: the helper has decided. `slurm-adopt metrics` shows what the service is full of"
    ),
    "session-escapes": f"add the session line, last in the stack and `required`. {PAM_STACK}",
    "session-uncertain": f"add the session line, last in the stack and `required`. {PAM_STACK}",
    "helper-unreachable": (
        "`slurm-adopt doctor`: is there a Python of 3.9 or later, and the helper? After an upgrade of Python run "
        "`/usr/libexec/slurm-adopt/setup configure` (packages), or install again"
    ),
    "helper-untrusted": "owner and mode of the helper or of /run/slurm-adopt: `slurm-adopt doctor` gives the command",
    "helper-bad-reply": (
        "whether module and helper are of one installation: `slurm-adopt doctor` (`module-other-build`)"
    ),
    "helper-timeout": LOAD,
    "user-unknown": "`getent passwd USER` on this node; the name service",
    "request-too-large": "shorten the PAM line: the options and what sshd knows of the login must fit one packet",
    "join-failed": (
        "the module's line in the log with the kernel's error; SELinux: the boolean `slurm_adopt_join_namespaces`"
    ),
    "user-no-such-job": (
        "`slurm-adopt jobs` lists the user's jobs here; tasks of an array have numbers of their own there"
    ),
    "user-job-not-running": "`squeue -j ID`, and try again",
    "user-preference-failed": "the text behind it; whether /run is full: `df -h /run`",
    "user-not-a-login": (
        "where the command was called: it moves ssh logins, not batch scripts, srun's shells or other services"
    ),
    "user-move-off": "`user_move=yes` on sshd's account line, if users may move their logins",
    "user-move-in-the-way": (
        "the list that the user was shown: end these programs, or log in anew with `slurm-adopt use`"
    ),
    "user-move-namespaces": "log in anew with `slurm-adopt use ID`",
    "user-move-incomplete": "the processes that the user was shown; they are still in the job of before",
    "user-move-failed": "the text behind it, and slurmd's log",
    "user-busy": "nothing, if it is rare: ten requests in a row and one a second after that are answered",
    "user-bad-request": "whether command and service are of one version: restart `slurm-adopt-users.service`",
    "user-timeout": STEPD,
    "caller-foreign": (
        "who uses whose key: the login came from inside a job of another user. It went where `action_unknown=` says"
    ),
    "caller-not-a-node": (
        "nothing, for logins from login nodes and from outside. For a compute node: its addresses (NodeAddr, NAT, a"
        " second "
        "network)"
    ),
    "caller-unreachable": (
        "`slurmd` of the source node, and whether its SlurmdPort answers from here (refused, no route)"
    ),
    "caller-silent": (
        "a firewall that drops packets to the source's SlurmdPort, or a slurmd that hangs there; let the firewall "
        "reject instead"
    ),
    "caller-skipped": "as `caller-silent`: the same node did not answer a moment ago",
    "caller-refused": "slurmd's log on the source node; do the clocks agree, and the munge keys?",
    "caller-malformed": "who listens at the source node's SlurmdPort",
    "caller-untrusted": "who listens at the source node's SlurmdPort; do clocks and munge keys agree?",
    "caller-no-credential": "`slurm-adopt doctor` (`munge-down`, `munge-fails`, `auth-key-missing`, …)",
}
