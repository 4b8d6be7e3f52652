# SPDX-License-Identifier: Apache-2.0
"""Python environments for single tests, out of pinned requirements that the rest of the suite does not need.

Each list of requirements is an environment of its own beside the private roots, built once, then only read.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from lab.machine import LabError
from lab.root import cache_dir

#: The one that Debian's machines have, too, so that what is installed here can be copied into them.
PYTHON = "/usr/bin/python3"


def ensure_environment(requirements: Path) -> Path:
    """The folder of a virtual environment with what `requirements` lists, made if need be. Raises LabError."""
    text = "\n".join(line for line in requirements.read_text().splitlines() if line and not line.startswith("#"))
    version = subprocess.run([PYTHON, "-V"], check=True, stdout=subprocess.PIPE, text=True).stdout
    tag = hashlib.sha256(f"{version}{text}".encode()).hexdigest()[:12]
    folder = cache_dir() / "environments" / tag
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            print(f"lab: installing {' '.join(text.split())} (once)", file=sys.stderr, flush=True)
            pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            for argv in ([PYTHON, "-m", "venv", str(folder)], [*pip, "-r", str(requirements)]):
                done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                if done.returncode:
                    raise LabError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}")
            (folder / "ready").touch()
    return folder


def site_packages(environment: Path) -> Path:
    """Where an environment has its packages."""
    (found,) = environment.glob("lib/python3*/site-packages")
    return found
