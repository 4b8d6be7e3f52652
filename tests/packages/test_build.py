# SPDX-License-Identifier: Apache-2.0
"""Two builds of the same sources are the same bytes, and the linters of both worlds have nothing to say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from .conftest import ROOT, run

pytestmark = pytest.mark.packages
NAMES = ("*.tar.gz", "*.deb", "*.rpm")


def made(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in NAMES for path in folder.glob(pattern)}


def test_build__twice_is_the_same(packages: Path, tmp_path: Path) -> None:
    """In another folder, at another time, with another umask, time zone and language, and out of the tarball itself."""
    first = made(packages)
    assert len([name for name in first if name.endswith((".deb", ".rpm"))]) == 5
    (tarball,) = packages.glob("*.tar.gz")
    source = tmp_path / "elsewhere" / "with-a-longer-name"
    source.mkdir(parents=True)
    run("tar", "-xf", tarball, "-C", source)
    (unpacked,) = source.iterdir()
    newest = max(path.stat().st_mtime for path in packages.iterdir())
    assert time.time() > newest
    before = os.umask(0o027)
    try:
        out = source / "out"
        argv: list[str | Path] = [
            "python3",
            unpacked / "tools/packages",
            "deb",
            "rpm",
            "--work",
            source / "work",
            "--out",
            out,
        ]
        zig = os.environ.get("ZIG") or f"{ROOT}/.venv/bin/python -m ziglang"
        run(*argv, env={"TZ": "Asia/Kathmandu", "LC_ALL": "C", "ZIG": zig})
    finally:
        os.umask(before)
    second = made(out)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_build__lintian_finds_nothing(packages: Path) -> None:
    said = run("lintian", "--tag-display-limit=0", "--fail-on=error,warning", *packages.glob("*.deb"), check=False)
    assert [line for line in said.splitlines() if line.startswith(("E:", "W:"))] == []


def test_build__rpmlint_finds_nothing(packages: Path) -> None:
    assert shutil.which("rpmlint")
    config = ROOT / "packaging/rpm/rpmlint.toml"
    said = run("rpmlint", "-c", config, *packages.glob("*.rpm"), check=False)
    assert [line for line in said.splitlines() if ": E: " in line or ": W: " in line] == []
    assert "3 packages" in said


def test_build__signs_with_a_key(packages: Path, tmp_path: Path) -> None:
    """A signature over all checksums, and one in each .rpm."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    environment = {"GNUPGHOME": str(home)}
    run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "tester", "rsa2048", "sign", "1d", env=environment)
    out = tmp_path / "out"
    shutil.copytree(packages, out)
    run(
        "python3",
        ROOT / "tools/packages",
        "sign",
        "sums",
        "--work",
        tmp_path / "w",
        "--out",
        out,
        "--key",
        "tester",
        env=environment,
    )
    run("gpg", "--verify", out / "SHA256SUMS.asc", out / "SHA256SUMS", env=environment)
    run("sh", "-c", f"cd {out} && sha256sum --check --strict SHA256SUMS")
    for rpm in out.glob("*.rpm"):
        assert "(none)" not in run("rpm", "-qp", "--qf", "%{RSAHEADER:pgpsig}", rpm)


def test_build__has_what_belongs_in_it(deb: Path) -> None:
    names = {line.split()[-1] for line in run("dpkg-deb", "-c", deb).splitlines()}
    for name in (
        "./usr/bin/slurm-adopt",
        "./usr/lib/slurm-adopt/pam_slurm_adopt.so",
        "./usr/libexec/slurm-adopt/helper",
        "./usr/libexec/slurm-adopt/setup",
        "./usr/libexec/slurm-adopt/hooks/prolog",
        "./usr/lib/systemd/system/slurm-adopt.socket",
        "./usr/share/man/man8/pam_slurm_adopt.8.gz",
        "./usr/share/man/man1/slurm-adopt.1.gz",
        "./usr/share/bash-completion/completions/slurm-adopt",
        "./usr/share/slurm-adopt/monitoring/slurm-adopt-dashboard.json",
        "./usr/share/slurm-adopt/ansible/roles/slurm_adopt/tasks/main.yml",
        "./usr/share/zsh/site-functions/_slurm-adopt",
        "./usr/share/fish/vendor_completions.d/slurm-adopt.fish",
        "./usr/share/doc/slurm-adopt/CHANGELOG.md.gz",
    ):
        assert name in names
    assert [name for name in names if "/pam.d/" in name or name.startswith("./etc") or name.endswith(".pyc")] == []


def test_build__the_bill_of_materials_names_what_was_built(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(packages, out)
    run(ROOT / "tools/sbom", out)
    (path,) = out.glob("*.cdx.json")
    document = json.loads(path.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    listed = {one["name"]: one.get("hashes", [{}])[0].get("content") for one in document["components"]}
    for name, content in made(packages).items():
        assert listed[name] == hashlib.sha256(content).hexdigest()
    refs = {one["bom-ref"] for one in document["components"]} | {"slurm-adopt"}
    for entry in document["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= refs
    (compiler,) = document["metadata"]["tools"]["components"]
    assert f"{compiler['name']}=={compiler['version']}" in (ROOT / "packaging/requirements.txt").read_text()
    before = path.read_bytes()
    run(ROOT / "tools/sbom", out)
    assert path.read_bytes() == before


def test_build__a_release_says_what_is_missing(tmp_path: Path) -> None:
    """No section of the changelog, no release."""
    copy = tmp_path / "copy"
    run("git", "clone", "-q", "--no-hardlinks", ROOT, copy)
    (copy / "src/slurm_adopt/__init__.py").write_text('__version__ = "98.7.6"\n')
    run("git", "-C", copy, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "version: raise")
    said = run(copy / "tools/release", check=False)
    assert "CHANGELOG.md has no section for 98.7.6" in said
    (copy / "README.md").write_text("changed")
    assert "changes that are not committed" in run(copy / "tools/release", check=False)
    assert not (copy / "dist").exists()
