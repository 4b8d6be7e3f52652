# SPDX-License-Identifier: Apache-2.0
"""The module of the packages: what it needs of any system, and that it works on a machine of another kind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.root import archive_of, host_release

from .conftest import ROOT, run

pytestmark = pytest.mark.packages
ARCHS = ("amd64", "arm64")
ENTRY_POINTS = {"pam_sm_acct_mgmt", "pam_sm_open_session", "pam_sm_close_session"}
#: RHEL 8, the oldest of all systems that this is for: glibc 2.28, Linux-PAM 1.3.1.
GLIBC_FLOOR = (2, 28)
PAM_VERSIONS = {"LIBPAM_1.0", "LIBPAM_EXTENSION_1.0", "LIBPAM_MODUTIL_1.0"}
#: The loader is named where the stack protector's guard is its symbol.
LIBRARIES = {"amd64": {"libpam.so.0", "libc.so.6"}, "arm64": {"libpam.so.0", "libc.so.6", "ld-linux-aarch64.so.1"}}
EMULATOR = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}
PAM_PERM_DENIED = 6


@pytest.fixture(scope="module", params=ARCHS)
def installed(request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the .deb of one machine holds."""
    tree = tmp_path_factory.mktemp(request.param)
    (deb,) = packages.glob(f"slurm-adopt_*_{request.param}.deb")
    run("dpkg-deb", "-x", deb, tree)
    return tree


def arch_of(tree: Path) -> str:
    return next(arch for arch in ARCHS if tree.name.startswith(arch))


def module_of(tree: Path) -> Path:
    return tree / "usr/lib/slurm-adopt/pam_slurm_adopt.so"


def test_module__needs_an_old_libc_and_libpam_only(installed: Path) -> None:
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", module_of(installed))))
    assert needed == LIBRARIES[arch_of(installed)]
    versions = set(re.findall(r"@(\S+)", run("nm", "--dynamic", "--undefined-only", module_of(installed))))
    glibc = {version for version in versions if version.startswith("GLIBC_")}
    assert versions - glibc == PAM_VERSIONS
    assert glibc
    assert max(tuple(map(int, version[6:].split(".")[:2])) for version in glibc) <= GLIBC_FLOOR


def test_module__of_libpam_every_symbol_has_its_version(installed: Path) -> None:
    names = re.findall(r"\bU (pam_\S+)", run("nm", "--dynamic", "--undefined-only", module_of(installed)))
    assert names
    assert [name for name in names if "@LIBPAM_" not in name] == []


def test_module__is_hardened_and_exports_the_entry_points_only(installed: Path) -> None:
    module = module_of(installed)
    defined = run("nm", "--dynamic", "--defined-only", module).splitlines()
    assert {line.split()[-1] for line in defined if " A " not in line} == ENTRY_POINTS
    segments = run("readelf", "-lW", module).splitlines()
    assert any("GNU_RELRO" in line for line in segments)
    assert " RW " in next(line for line in segments if "GNU_STACK" in line)
    assert "NOW" in run("readelf", "-dW", module)
    undefined = run("nm", "--dynamic", "--undefined-only", module)
    assert "__stack_chk_fail" in undefined
    assert "_chk@" in undefined
    assert ".debug" not in run("readelf", "-SW", module)


def test_module__of_both_packages_is_the_same(installed: Path, packages: Path, tmp_path: Path) -> None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[arch_of(installed)]
    (rpm,) = packages.glob(f"slurm-adopt-[0-9]*.{machine}.rpm")
    with subprocess.Popen(["rpm2cpio", str(rpm)], stdout=subprocess.PIPE) as source:
        subprocess.run(["cpio", "-idm", "--quiet"], stdin=source.stdout, cwd=tmp_path, check=True)
    assert module_of(tmp_path).read_bytes() == module_of(installed).read_bytes()


ASK = """
/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <security/pam_appl.h>

static int quiet(int n, const struct pam_message **m, struct pam_response **r, void *d)
{
    (void)d;
    for (int i = 0; i < n; i++)
        printf("said %s\\n", m[i]->msg);
    *r = calloc((size_t)n, sizeof(**r));
    return PAM_SUCCESS;
}

int main(int argc, char **argv)
{
    struct pam_conv talk = {quiet, NULL};
    pam_handle_t *pamh = NULL;

    if (argc != 4)
        return 2;
    if (!dlopen(argv[3], RTLD_NOW)) {
        printf("dlopen %s\\n", dlerror());
        return 3;
    }
    if (pam_start_confdir("sshd", argv[2], &talk, argv[1], &pamh) != PAM_SUCCESS)
        return 4;
    pam_set_item(pamh, PAM_RHOST, "192.0.2.1");
    printf("account %d\\n", pam_acct_mgmt(pamh, 0));
    return pam_end(pamh, 0);
}
"""


@pytest.fixture(scope="module")
def arm64_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libc and libpam of Debian's arm64: unpacked, nothing of it is run but by the emulator."""
    distribution, suite = host_release()
    archive = archive_of(distribution, suite)
    root = tmp_path_factory.mktemp("root") / "arm64"
    source = f"deb [signed-by={archive.keyring}] {archive.uri} {suite} main"
    argv = ["mmdebstrap", "--mode=root", "--variant=extract", "--architectures=arm64", "--skip=check/qemu"]
    run(*argv, "--include=libpam0g,libpam-modules,libc6", suite, root, source)
    return root


def test_module__works_on_arm64(packages: Path, arm64_root: Path, tmp_path: Path) -> None:
    """dlopen() and pam_sm_acct_mgmt() in an emulated process, with Debian's arm64 libpam: root is let through, an
    unknown user is told apart, and a user who has nobody to ask gets what the option says."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    assert qemu, "tools/setup-host packages installs qemu-user"
    (deb,) = packages.glob("slurm-adopt_*_arm64.deb")
    run("dpkg-deb", "-x", deb, arm64_root)
    (libpam,) = arm64_root.glob("*/aarch64-linux-gnu/libpam.so.0.*")
    (tmp_path / "libpam.so").symlink_to(libpam)
    (tmp_path / "include").mkdir()
    (tmp_path / "include/security").symlink_to("/usr/include/security")
    (tmp_path / "ask.c").write_text(ASK)
    compiler = os.environ.get("ZIG", f"{sys.executable} -m ziglang").split()
    run(
        *compiler,
        "cc",
        "-target",
        "aarch64-linux-gnu.2.34",
        f"-I{tmp_path}/include",
        "-o",
        tmp_path / "ask",
        tmp_path / "ask.c",
        tmp_path / "libpam.so",
        "-Wl,--allow-shlib-undefined",
    )
    module = module_of(arm64_root)
    answers = {}
    for user in ("root", "nobody-knows", "daemon"):
        for option in ("profile=strict", "profile=compatible"):
            config = tmp_path / f"pam-{user}-{option}"
            config.mkdir()
            line = f"account required {module} {option} timeout=1 socket=/nonexistent/socket"
            (config / "sshd").write_text(f"{line}\naccount required pam_permit.so\n")
            said = run(qemu, "-L", arm64_root, tmp_path / "ask", config, user, module, check=False)
            answers[user, option] = re.findall(r"^account (\d+)$", said, re.MULTILINE) or said
    assert answers["root", "profile=strict"] == ["0"]
    assert answers["nobody-knows", "profile=strict"] != ["0"]
    # no helper there for the host: the module does what action_generic_failure says, and pam_permit comes next
    assert answers["daemon", "profile=strict"] == [str(PAM_PERM_DENIED)]
    assert answers["daemon", "profile=compatible"] == ["0"]


def test_module__the_stub_of_libpam_says_what_libpam_says() -> None:
    """Names and versions that the module is linked against are those of the libpam that is here."""
    stub: dict[str, str] = {}
    version = ""
    for line in (ROOT / "packaging/portable/libpam.map").read_text().splitlines():
        if found := re.match(r"(LIBPAM\w*_1\.0) \{", line):
            version = found[1]
        elif found := re.match(r"\s+(pam_\w+);", line):
            stub[found[1]] = version
    assert stub
    library = next(
        path for path in (Path("/lib/x86_64-linux-gnu"), Path("/lib/aarch64-linux-gnu")) if path.is_dir()
    ).joinpath("libpam.so.0")
    real = dict(re.findall(r" T (pam_\w+)@@(\S+)", run("nm", "--dynamic", "--defined-only", library)))
    assert {name: real.get(name) for name in stub} == stub
