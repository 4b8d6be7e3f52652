# SPDX-License-Identifier: Apache-2.0
"""The one-shot helper's modules in one file: used if it fits, done without if it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "slurm_adopt"
PYTHON = "/usr/bin/python3"
LOADED = "import sys; sys.path.insert(0, sys.argv[1]); import slurm_adopt.login.helper; print(*sys.modules)"
LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
from slurm_adopt.bundle import use_bundle
used = use_bundle(sys.argv[1])
import slurm_adopt.login.helper, slurm_adopt.login.await_start
print(used, *[name for name, module in sys.modules.items() if type(getattr(module.__spec__, "loader", 0)).__name__ == "Bundle"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installed package, as tools/byte-compile leaves it."""
    shutil.copytree(SOURCE, tmp_path / "slurm_adopt", ignore=shutil.ignore_patterns("__pycache__"))
    tool = SOURCE.parents[1] / "tools" / "byte-compile"
    subprocess.run([tool, str(tmp_path)], check=True, env={"DESTDIR": ""})
    return tmp_path


def run(folder: Path, code: str) -> str:
    """What a bare Python prints."""
    done = subprocess.run([PYTHON, "-I", "-S", "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout


def load(folder: Path) -> tuple[bool, set[str]]:
    """Whether the bundle was taken, and which modules came out of it."""
    used, *names = run(folder, LOAD).split()
    return used == "True", set(names)


def test_bundle__has_all_that_every_login_loads(folder: Path) -> None:
    used, names = load(folder)
    assert used
    assert {"slurm_adopt.login.decide", "slurm_adopt.policy", "slurm_adopt.system.slurm.stepd", "struct"} <= names
    assert "slurm_adopt.login.await_start" not in names  # what few logins load is found beside it
    assert {name for name in run(folder, LOADED).split() if name.startswith("slurm_adopt.")} <= names


def test_bundle__changed_file_counts_and_not_what_it_was(folder: Path) -> None:
    policy = folder / "slurm_adopt" / "policy.py"
    policy.write_text(policy.read_text() + "\n# changed\n")
    used, names = load(folder)
    assert used
    assert "slurm_adopt.policy" not in names
    assert "slurm_adopt.model" in names
    os.utime(folder / "slurm_adopt" / "model.py", (1, 1))
    assert "slurm_adopt.model" not in load(folder)[1]


@pytest.mark.parametrize("damage", ["missing", "empty", "of another Python", "cut short", "not a table"])
def test_bundle__that_does_not_fit_is_done_without(folder: Path, damage: str) -> None:
    bundle = folder / "oneshot.bundle"
    whole = bundle.read_bytes()
    damaged = {
        "empty": b"",
        "of another Python": b"\0\0\r\n" + whole[4:],
        "cut short": whole[: len(whole) // 2],
        "not a table": whole[:4],
    }
    if damage == "missing":
        bundle.unlink()
    else:
        bundle.write_bytes(damaged[damage])
    assert load(folder) == (False, set())


def test_bundle__tracebacks_name_the_real_files(folder: Path) -> None:
    names = run(folder, LOAD + "import slurm_adopt.policy as p; print(p.__file__, p.decide.__code__.co_filename)")
    assert set(names.splitlines()[1].split()) == {f"{folder}/slurm_adopt/policy.py"}


SIGNS = """
import sys
sys.path.insert(0, sys.argv[1])
if len(sys.argv) == 2:
    from slurm_adopt.bundle import use_bundle
    assert use_bundle(sys.argv[1])
import slurm_adopt.login.helper as helper, slurm_adopt.model as model, slurm_adopt.wire.stepd as stepd
fields = [cls.__fields__ for cls in vars(model).values() if hasattr(cls, "__fields__")]
line = helper.main.__code__.co_firstlineno, helper.main.__code__.co_filename[len(sys.argv[1]):]
try:
    stepd.encode_pid_request(None, None)
except Exception as error:
    failed = type(error).__name__
print(fields, line, failed, sorted(vars(stepd)), helper.__doc__, helper.main.__annotations__, sep="\\n")
"""


def test_bundle__does_what_the_files_do(folder: Path) -> None:
    """But for what nobody looks at in a login: docstrings, and the annotations of functions."""
    bundled = run(folder, SIGNS).splitlines()
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", SIGNS, str(folder), "files"], capture_output=True, text=True, check=True
    )
    assert bundled[:4] == done.stdout.splitlines()[:4]
    assert len(bundled[0]) > 100
    assert bundled[4:] == ["None", "{}"]


def test_bundle__an_ellipsis_of_a_body_is_left(folder: Path) -> None:
    """A class or function that has nothing but its docstring."""
    (folder / "slurm_adopt" / "policy.py").open("a").write(
        'class Nothing:\n    """Nothing."""\n\n\ndef nothing(one: int, *more: int, two: int = 2, **rest: int) -> None:\n    """No."""\n'
    )
    subprocess.run([SOURCE.parents[1] / "tools/byte-compile", str(folder)], check=True, env={"DESTDIR": ""})
    code = (
        LOAD
        + "\nfrom slurm_adopt import policy; print(policy.nothing(1, 2, two=3, x=4), policy.nothing.__annotations__)"
    )
    assert run(folder, code).splitlines()[-1] == "None {}"
