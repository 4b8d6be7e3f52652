# SPDX-License-Identifier: Apache-2.0
"""The shipped prolog, epilog and task prolog, run by real Slurm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product, use_strict_lines

HOOKS = "/usr/libexec/slurm-adopt/hooks"
PER_JOB = r"./\(jobs\|marks\|user\)/.*"
STRICT = "required pam_slurm_adopt.so profile=strict"
DIRECTORY = "/run/slurm-adopt/user/1501"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    settings = {"Prolog": f"{HOOKS}/prolog", "Epilog": f"{HOOKS}/epilog", "TaskProlog": f"{HOOKS}/task-prolog"}
    with Node(suite=request.param, slurm=settings) as node:
        use_product(node)
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    use_strict_lines(machine, f"{STRICT} runtime_dir=user")
    yield machine
    machine.cancel_all()
    wait_for(lambda: left_of_hooks(machine) == [], f"the hooks to have tidied up: {left_of_hooks(machine)}")


def left_of_hooks(node: Node) -> list[str]:
    """What is there of any job: files, directories, mounts."""
    found = node.run(f"cd /run/slurm-adopt 2>/dev/null || exit 0; find . -regex '{PER_JOB}'").stdout.split()
    return found + [line for line in node.read("/proc/1/mounts").splitlines() if "slurm-adopt/user" in line]


def runtime_dir_of_login(node: Node, user: str = "alice") -> str:
    command = 'touch $XDG_RUNTIME_DIR/x && stat -c "%U %a" $XDG_RUNTIME_DIR; echo dir=$XDG_RUNTIME_DIR'
    said = node.ssh(user, command).stdout.splitlines()
    assert f"{user} 700" in said or "dir=" in said, said
    return next(line[4:] for line in said if line.startswith("dir="))


def test_hooks__sessions_and_tasks_have_a_runtime_directory(node: Node) -> None:
    job = node.submit("alice", "echo $XDG_RUNTIME_DIR > /tmp/seen; exec sleep 1000")
    assert runtime_dir_of_login(node) == DIRECTORY
    wait_for(lambda: node.path("/tmp/seen").exists() and node.read("/tmp/seen"), "the batch script")
    assert node.read("/tmp/seen").strip() == DIRECTORY
    assert node.run(["ls", DIRECTORY], user="bob", check=False).returncode != 0
    node.cancel(job)
    wait_for(lambda: not node.path(DIRECTORY).exists(), "the directory to go")


def test_hooks__it_stays_until_the_last_job_has_ended(node: Node) -> None:
    jobs = [node.submit("alice") for _ in range(3)]
    assert runtime_dir_of_login(node) == DIRECTORY
    for job in jobs[:2]:
        node.cancel(job)
        wait_for(lambda job=job: not node.path(f"/run/slurm-adopt/jobs/{job}.env").exists(), "the epilog")
        assert node.path(f"{DIRECTORY}/x").exists()
    node.cancel(jobs[2])
    wait_for(lambda: not node.path(DIRECTORY).exists(), "the directory to go")


def test_hooks__jobs_that_start_and_end_at_once_do_not_take_it_from_each_other(node: Node) -> None:
    """Twenty hooks of three jobs at a time, in any order: whenever a job has its mark, the directory is there."""
    script = """
    hook() { SLURM_JOB_ID=$2 SLURM_JOB_UID=1501 SLURM_JOB_GID=1501 SLURM_JOB_USER=alice %s/$1; }
    one() {
        for round in $(seq 12); do
            hook prolog $1
            [ -d %s ] && [ "$(stat -c %%u %s)" = 1501 ] || echo "job $1 lost it in round $round"
            hook epilog $1
        done
    }
    for job in 901 902 903; do one $job & done
    wait
    """
    said = node.run(script % (HOOKS, DIRECTORY, DIRECTORY), timeout=120).stdout
    assert said == ""
    assert left_of_hooks(node) == []


def test_hooks__real_jobs_in_a_hurry(node: Node) -> None:
    # not submit_many(): the first of them may have ended before the last one begins
    first = [node.sbatch("alice", "sleep 0.2") for _ in range(4)]
    second = node.submit_many("alice", 2)
    for job in first:
        wait_for(lambda job=job: node.job_state(job) == "COMPLETED", f"job {job} to have run")
        node.wait_ended(job)
    assert runtime_dir_of_login(node) == DIRECTORY
    assert set(node.jobs("alice")) == set(second)


def test_hooks__the_job_file_tells_what_a_session_without_steps_cannot_know(node: Node) -> None:
    job = node.allocate("alice")
    use_strict_lines(node, f"{STRICT} export_env=job")
    said = node.ssh("alice", "env").stdout
    assert f"SLURM_JOB_ID={job}\n" in said
    assert "SLURM_JOB_PARTITION=main\n" in said
    assert "SLURM_JOB_STDOUT" not in said


def test_hooks__a_foreign_directory_is_not_announced(node: Node) -> None:
    """Whatever stands there must be the user's own and private."""
    node.submit("alice")
    node.run(["chmod", "755", DIRECTORY])
    assert runtime_dir_of_login(node) == ""
    node.run(["chown", "bob", DIRECTORY])
    assert runtime_dir_of_login(node) == ""
    node.run(f"chown alice {DIRECTORY}; chmod 700 {DIRECTORY}")


#: Argument: how a process hides from Slurm in folders of its own below the extern step's.
HIDE = """
import os, sys, time
for line in open("/proc/self/cgroup"):
    if ":freezer:" in line: os.chdir("/sys/fs/cgroup/freezer" + line.split(":", 2)[2].strip())
for _ in range(25 if "deep" in sys.argv else 1):  # deeper than a path may be long
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
ours, theirs = os.pipe()
pid = os.fork()
if pid == 0:
    os.setsid()
    with open("cgroup.procs", "w") as file: file.write("0")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3): os.dup2(null, fd)
    os.write(theirs, b"x")
    os.chdir("/")
    time.sleep(4242)
os.read(ours, 1)
if "frozen" in sys.argv:
    with open("freezer.state", "w") as file: file.write("FROZEN")
print(pid, len(os.getcwdb()))
"""


def hides(node: Node) -> bool:
    """Whether a user can hide from Slurm here: on cgroup v1 the step's folder is the user's up to 22.05."""
    if node.tree.version != 1:
        pytest.skip("cgroup v2: the folders are root's")
    if node.slurm_release < (21, 8):
        pytest.skip("20.11: the step itself does not end before that process, no epilog runs, Slurm drains the node")
    return node.slurm_release < (24, 11)


@pytest.mark.parametrize("how", ["plain", "deep", "frozen", "deep frozen"])
def test_hooks__what_hides_below_its_step_ends_with_the_job(node: Node, how: str) -> None:
    """Slurm leaves such a process behind."""
    can_hide = hides(node)
    node.write("/etc/lab/hide.py", HIDE)
    job = node.submit("alice")
    said = node.ssh("alice", f"python3 /etc/lab/hide.py {how}").stdout.split()
    if not can_hide:
        assert said == [], "the step's folder is root's here: nobody can hide below it"
        return
    if "deep" in how:
        assert int(said[1]) > 4096
    else:
        assert f"job_{job}/step_extern/ddd" in node.cgroups_of(int(said[0]))["freezer"]
    node.cancel(job)
    wait_for(lambda: not node.processes("alice"), "the process in hiding to be gone")
    wait_for(lambda: not folders_of(node, job), "the job's folders to be gone")


#: Argument: the job whose folders are filled again and again, from another one.
FILL = """
import contextlib, glob, os, sys, time
steps = glob.glob(f"/sys/fs/cgroup/freezer/slurm*/uid_*/job_{sys.argv[1]}/step_extern")
while True:
    pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "4242")
    for step in steps:
        with contextlib.suppress(OSError): os.mkdir(f"{step}/mine")
        with contextlib.suppress(OSError), open(f"{step}/mine/cgroup.procs", "w") as file: file.write(str(pid))
    while os.waitpid(pid, os.WNOHANG) == (0, 0): time.sleep(0.001)
"""


def test_hooks__folders_that_are_filled_from_another_job_go_with_the_last_one(node: Node) -> None:
    if not hides(node):
        return
    node.write("/etc/lab/fill.py", FILL)
    first, second = node.submit("alice", ntasks=1), node.submit("alice", ntasks=1)
    node.ssh("alice", f"setsid python3 /etc/lab/fill.py {first} >/dev/null 2>&1 </dev/null &")
    filler = node.process(f"python3 /etc/lab/fill.py {first}", "alice")
    assert f"job_{second}/step_extern" in filler.cgroups["freezer"]
    wait_for(lambda: f"job_{first}/step_extern/mine" in str(node.processes("alice")), "the folder to be filled")
    node.cancel(first)
    wait_for(lambda: not node.path(f"/run/slurm-adopt/marks/1501/{first}").exists(), "the first job's epilog")
    node.cancel(second)
    wait_for(lambda: not node.processes("alice"), "the processes in hiding to be gone")
    wait_for(lambda: not folders_of(node, first), "the first job's folders to be gone")


#: Arguments: two jobs. Processes below the step of each have children that go below the other's, at odd times, so that
#: they never end all at once.
PUMP = """
import contextlib, glob, os, random, sys, time
def below(job):
    return glob.glob(f"/sys/fs/cgroup/freezer/slurm*/uid_*/job_{job}/step_extern")[0] + "/mine"
def enter(folder):
    with contextlib.suppress(OSError): os.mkdir(folder)
    with open(folder + "/cgroup.procs", "w") as file: file.write("0")
def count(folder):
    try:
        with open(folder + "/cgroup.procs") as file: return len(file.read().split())
    except OSError:
        return 0
def pump(mine, theirs):
    while True:
        if count(mine) > 12 and random.random() < 0.1: os._exit(0)
        if count(theirs) < 6 and random.random() < 0.4 and os.fork() == 0:
            random.seed()
            try: enter(theirs)
            except OSError: os._exit(1)
            mine, theirs = theirs, mine
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]: pass
        time.sleep(0.01)
one, two = map(below, sys.argv[1:3])
if os.fork(): sys.exit()
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for fd in range(3): os.dup2(null, fd)
os.chdir("/")
enter(one)
pump(one, two)
"""


@pytest.mark.releases
def test_hooks__two_jobs_that_fill_each_others_folders_end(node: Node) -> None:
    if not hides(node):
        return
    node.write("/etc/lab/pump.py", PUMP)
    first, second = node.submit("alice", ntasks=1), node.submit("alice", ntasks=1)
    node.ssh("alice", f"python3 /etc/lab/pump.py {first} {second}", check=True)
    for job in (first, second):
        wait_for(
            lambda job=job: f"job_{job}/step_extern/mine" in str(node.processes("alice")), "the folder to be filled"
        )
    node.cancel(first)
    wait_for(lambda: not node.path(f"/run/slurm-adopt/marks/1501/{first}").exists(), "the first job's epilog", 120)
    node.cancel(second)
    wait_for(lambda: not node.processes("alice"), "the processes in hiding to be gone", 120)
    wait_for(lambda: not folders_of(node, first) and not folders_of(node, second), "the jobs' folders to be gone", 120)


def folders_of(node: Node, job: int) -> str:
    return node.run(f"ls -d /sys/fs/cgroup/freezer/slurm*/uid_*/job_{job}", check=False).stdout


@pytest.mark.parametrize("job", ["", "../../etc/x", "7;id", "7 8"])
def test_hooks__odd_numbers_do_nothing(node: Node, job: str) -> None:
    for hook in ("prolog", "epilog"):
        done = node.run([f"{HOOKS}/{hook}"], env={"SLURM_JOB_ID": job, "SLURM_JOB_UID": "1501"})
        assert done.returncode == 0
    assert left_of_hooks(node) == []


def test_hooks__a_full_directory_is_the_users_own_problem(node: Node) -> None:
    """It is a small file system of its own, not part of /run."""
    node.submit("alice")
    mounts = node.read("/proc/1/mounts")
    line = next(line for line in mounts.splitlines() if f" {DIRECTORY} " in line)
    assert "nosuid,nodev" in line
    assert "size=" in line


FUSE = """
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
if not os.path.exists("/dev/fuse"): os.mknod("/dev/fuse", 0o020666, os.makedev(10, 229))
fd = os.open("/dev/fuse", os.O_RDWR)
# as fusermount does it for the user
options = f"fd={fd},rootmode=40000,user_id=1501,group_id=1501" + (",allow_other" if "others" in sys.argv else "")
if libc.mount(b"fuse", b"/run/slurm-adopt/user/1501", b"fuse", 2 | 4, options.encode()):
    raise OSError(ctypes.get_errno(), "no FUSE here")
request = os.read(fd, 1 << 17)
_, _, unique = struct.unpack_from("=IIQ", request)
answer = struct.pack("=IIIIHHI", 7, 31, 65536, 0, 12, 10, 4096).ljust(64, b"\\0")
os.write(fd, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
open("/run/lab/mounted", "w").close()
while True:
    os.read(fd, 1 << 17)  # requests are read, and none is answered
"""


@pytest.mark.parametrize("whom", ["others", "its user alone"])
def test_hooks__a_file_system_over_the_directory_that_answers_nobody(node: Node, whom: str) -> None:
    """It keeps root out, or lets it wait for ever: neither the login nor the epilog touches it."""
    node.write("/etc/lab/fuse.py", FUSE)
    job = node.submit("alice")
    node.run(f"echo kept > {DIRECTORY}/ballast")
    server = node.popen(["python3", "/etc/lab/fuse.py", whom.split()[0]])
    try:
        wait_for(lambda: node.path("/run/lab/mounted").exists(), "the FUSE file system")
        assert runtime_dir_of_login_unseen(node) == ""
        node.cancel(job)
        wait_for(lambda: left_of_hooks(node) == [], "the epilog to have taken everything away")
    finally:
        server.kill()
        server.wait()
        node.run(["rm", "-f", "/run/lab/mounted"])
    # the next job makes it anew
    job = node.submit("alice")
    assert runtime_dir_of_login(node) == DIRECTORY


def runtime_dir_of_login_unseen(node: Node) -> str:
    """What the login is told, without looking at it."""
    return node.ssh("alice", "echo $XDG_RUNTIME_DIR").stdout.strip()


def test_hooks__a_name_that_is_another_users_number(node: Node) -> None:
    """The folder is the user's whose uid it is. (Jobs of either cannot be submitted here: setpriv takes such a number for
    the name, too.)"""
    kept = node.read("/etc/passwd")
    job = {"SLURM_JOB_ID": "4700", "SLURM_JOB_UID": "1501"}
    node.path("/etc/passwd").write_text(f"{kept}1501:x:1513:1502::/:/bin/sh\n")
    try:
        node.run([f"{HOOKS}/prolog"], env=job)
        assert node.run(["stat", "-c", "%u:%g", DIRECTORY]).stdout == node.run("echo 1501:$(id -g alice)").stdout
    finally:
        node.run([f"{HOOKS}/epilog"], env=job)
        node.path("/etc/passwd").write_text(kept)
