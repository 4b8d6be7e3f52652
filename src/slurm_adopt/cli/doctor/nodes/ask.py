# SPDX-License-Identifier: Apache-2.0
"""Running the doctor on many nodes: through ClusterShell (ssh, its node sets, its tree), or with an srun for each.

Rules of this file:
1. It runs as whoever calls it, with their ssh or Slurm rights; nothing is installed or changed on the nodes.
2. Each node has `NODE_S` seconds and `ANSWER_CAP` bytes; what does not come in them is an answer, too.
3. One srun for each node: one that is down or full does not keep the others from answering, and what a node sends can
   only be taken for its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import site
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from ....wire.hostlist import HostListError, expand
from ...main import die
from .answers import ANSWER_CAP, Answer
from .clustershell import NAME, NODE_S, SAID_CAP, ask_clustershell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

#: How many at the same time, from one machine.
SRUN_FANOUT = 16
#: How long srun waits for a place on a node.
PLACE_S = 20
#: More than Slurm has nodes.
NODE_CAP = 65536
MISSING = "python3-clustershell of the distribution, or ClusterShell from PyPI"


def has_clustershell() -> bool:
    """Whether ClusterShell can be imported. The command runs without site's folders, until they are needed for this."""
    if importlib.util.find_spec(NAME) is None:
        site.main()
        importlib.invalidate_caches()
    return importlib.util.find_spec(NAME) is not None


def ask(nodes: str, command: tuple[str, ...], via: str, on_answer: Callable[[int, int], None]) -> list[Answer]:
    """The answers of a set of nodes, in its order; `on_answer(how many, of how many)` as they come."""
    if via == "clustershell" or (not via and has_clustershell()):
        if not has_clustershell():
            die("ClusterShell cannot be imported", f"install {MISSING}, or use --via srun")
        return ask_clustershell(nodes, command, on_answer, _checked)
    if shutil.which("srun") is None:
        die("there is neither ClusterShell nor srun here", f"install {MISSING}, or run it where srun is")
    return _ask_srun(nodes, command, on_answer)


# srun -----------------------------------------------------------------------------------------------


def _ask_srun(nodes: str, command: tuple[str, ...], on_answer: Callable[[int, int], None]) -> list[Answer]:
    try:
        names = _checked(list(dict.fromkeys(expand(nodes, NODE_CAP))))
    except HostListError as error:
        die(f"{nodes[:80]!r} is no set of nodes: {error}", "as in node[1-9],login; groups are ClusterShell's")
    lock = threading.Lock()
    over = 0

    def one(name: str) -> Answer:
        nonlocal over
        answer = _srun(name, command)
        with lock:
            over += 1
            on_answer(over, len(names))
        return answer

    with ThreadPoolExecutor(SRUN_FANOUT) as pool:
        return list(pool.map(one, names))


def _srun(name: str, command: tuple[str, ...]) -> Answer:
    argv = ["srun", f"--nodelist={name}", "--nodes=1", "--ntasks=1", f"--immediate={PLACE_S}", "--chdir=/"]
    argv += ["--job-name=slurm-adopt-doctor", "--input=none", "--quiet", *command]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(PLACE_S + NODE_S, end)
        timer.start()
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(_read(process.stderr, SAID_CAP, process)), daemon=True)
        reader.start()
        data = _read(process.stdout, ANSWER_CAP + 1, process)
        status = process.wait()
        timer.cancel()
        reader.join()
    text = said[0].decode("utf-8", "replace").strip()
    # without a doctor's word it is srun that failed: no such node, no place on it
    answered = not late.is_set() and (data or not text.startswith("srun:"))
    return Answer(name, data, status if answered else None, text)


def _read(stream: IO[bytes] | None, cap: int, process: subprocess.Popen[bytes]) -> bytes:
    """At most `cap` bytes; whoever sends more is ended."""
    assert stream is not None
    data = stream.read(cap)
    if len(data) == cap:
        process.kill()
    return data


def _checked(names: list[str]) -> list[str]:
    if not names:
        die("the set of nodes is empty", "as in slurm-adopt doctor --nodes node[1-9]")
    for name in names:
        if name.startswith("-") or not name.isprintable() or " " in name:
            die(f"{name[:80]!r} is no name of a node", "as in node[1-9],login")
    return names
