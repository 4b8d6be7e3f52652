# SPDX-License-Identifier: Apache-2.0
"""The built module: what it needs, what it exports, how it is hardened, where it is installed."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING

import pytest

from .conftest import HERE, ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

ENTRY_POINTS = {"pam_sm_acct_mgmt", "pam_sm_open_session", "pam_sm_close_session"}
MODULE = "src/pam/pam_slurm_adopt.so"


def test_build__needs_libpam_and_libc_only(plain_build: Path) -> None:
    lines = run("readelf", "-d", plain_build / MODULE).stdout.splitlines()
    needed = {line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line}
    assert needed == {"libpam.so.0", "libc.so.6"}


def test_build__exports_the_entry_points_only(plain_build: Path) -> None:
    lines = run("nm", "--dynamic", "--defined-only", plain_build / MODULE).stdout.splitlines()
    assert {line.split()[-1] for line in lines} == ENTRY_POINTS
    module = ctypes.CDLL(str(plain_build / MODULE), mode=os.RTLD_NOW)
    assert all(hasattr(module, name) for name in ENTRY_POINTS)
    assert not hasattr(module, "pam_sm_authenticate")


def test_build__hardened(plain_build: Path) -> None:
    """Read-only relocations, bound at once, no executable stack, stack protector, fortified calls."""
    segments = run("readelf", "-lW", plain_build / MODULE).stdout.splitlines()
    assert any("GNU_RELRO" in line for line in segments)
    stack = next(line for line in segments if "GNU_STACK" in line)
    assert " RW " in stack
    assert "NOW" in run("readelf", "-d", plain_build / MODULE).stdout
    symbols = run("nm", "--dynamic", "--undefined-only", plain_build / MODULE).stdout
    assert "__stack_chk_fail" in symbols
    assert "_chk@" in symbols


def test_build__forbidden_calls(plain_build: Path) -> None:
    """Nothing that changes the host's syslog identity, locale or handlers, reads its environment or prompts.

    The heap is used once, for what the PAM handle keeps (`strdup`, which libpam frees with the handle).
    """
    undefined = run("nm", "--dynamic", "--undefined-only", plain_build / MODULE).stdout.splitlines()
    names = {line.split()[-1].split("@")[0] for line in undefined}
    assert "pam_syslog" in names
    assert names.isdisjoint(
        "openlog closelog syslog setlocale sigaction alarm setitimer malloc calloc realloc strndup getenv secure_getenv "
        "setenv putenv system popen select pam_get_user pam_set_item atexit pthread_create strtod".split()
    )


def test_build__no_writable_data(plain_build: Path) -> None:
    """No static mutable state: of the module's own objects none is in .data or .bss."""
    lines = run("nm", plain_build / MODULE).stdout.splitlines()
    writable = {line.split()[2] for line in lines if len(line.split()) == 3 and line.split()[1] in "bBdD"}
    of_the_linker = {"_DYNAMIC", "_GLOBAL_OFFSET_TABLE_", "__TMC_END__", "__dso_handle", "completed.0"}
    #: tables of pointers need relocation, and are read-only afterwards (.data.rel.ro)
    tables = {"result_names", "level_names", "join_names", "names.0", "names.1", "enforce.0", "levels.0"}
    arrays = {"__frame_dummy_init_array_entry", "__do_global_dtors_aux_fini_array_entry"}
    assert writable - of_the_linker - arrays - tables == set()
    sections = run("readelf", "-SW", plain_build / MODULE).stdout
    bss = next(line for line in sections.splitlines() if " .bss " in line).split(".bss", 1)[1].split()
    assert int(bss[3], 16) <= 8


@pytest.mark.parametrize("pamlibdir", ["", "/lib/security"])
def test_build__installs_where_pam_looks(tmp_path: Path, pamlibdir: str) -> None:
    """The distribution's PAM module directory, or the one that is named."""
    build = tmp_path / "build"
    run("meson", "setup", build, ROOT, "-Dtests=false", f"-Dpamlibdir={pamlibdir}")
    run("ninja", "-C", build, MODULE)
    run(
        "meson",
        "install",
        "-C",
        build,
        "--no-rebuild",
        "--tags=pam",
        env={**os.environ, "DESTDIR": str(tmp_path / "root")},
    )
    libdir = run("pkg-config", "--variable=libdir", "pam").stdout.strip()
    where = tmp_path / "root" / (pamlibdir or f"{libdir}/security").lstrip("/")
    installed = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert installed == [where / "pam_slurm_adopt.so"]


def test_build__failure_table_names_its_tests() -> None:
    """Every test that docs/security/module.md names exists, and every reason code of the module is in its table."""
    table = (ROOT / "docs/security/module.md").read_text()
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", table))
    assert named
    assert {name for name in named if f"def {name}(" not in tests} == set()
    code = "".join(path.read_text() for path in (ROOT / "src/pam").glob("*.[ch]"))
    reasons = set(re.findall(r'"((?:helper|request|join|user|internal)-[a-z-]+)[" ]', code))
    assert {reason for reason in reasons if f"reason={reason}" not in table} == set()
