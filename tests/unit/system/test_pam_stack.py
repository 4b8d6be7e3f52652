# SPDX-License-Identifier: Apache-2.0
"""The lines of a PAM stack, word by word: kinds, controls, modules, includes, where each stands, and what is in doubt.

That libpam reads them so is shown in tests/libpam.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm_adopt.record import replace
from slurm_adopt.system.host import pam_stack
from slurm_adopt.system.host.pam_stack import (
    DEPTH_CAP,
    FILE_CAP,
    KINDS,
    LINE_CAP,
    KnownStacks,
    PamLine,
    assemble_lines,
    list_services,
    next_token,
    read_stack,
)


class Files:
    """A folder's PAM files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "etc/pam.d"
        self.folder.mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def at(self, name: str, number: int) -> str:
        return f"{self.folder / name}:{number}"

    def lines(self, service: str = "sshd", kind: str = "session") -> list[PamLine]:
        """Of a stack that is in no doubt."""
        stack = read_stack(service, kind, str(self.root))
        assert stack.doubts == ()
        return list(stack.lines)


@pytest.fixture
def pam(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("text", "control", "module", "args"),
    [
        ("session required pam_a.so", "required", "pam_a.so", ()),
        ("SESSION\tRequired \t pam_a.so a  b", "Required", "pam_a.so", ("a", "b")),
        ("session [a=ok default=bad] /x/pam_a.so [b c] d=[e]", "a=ok default=bad", "/x/pam_a.so", ("b c", "d=[e]")),
        ("session [a] [b \\] c] [d\\]] e", "a", "b ] c", ("d]", "e")),
        ("session [] pam_a.so []", "", "pam_a.so", ("",)),
        ("session required pam_a.so [open here", "required", "pam_a.so", ("open here",)),
        ("session required pam_a.so a \\\n  b\\\nc", "required", "pam_a.so", ("a", "b", "c")),
        ("session required pam_a.so a # b", "required", "pam_a.so", ("a",)),
    ],
)
def test_pam_stack__words(pam: Files, text: str, control: str, module: str, args: tuple[str, ...]) -> None:
    pam.write("sshd", f"\n{text}\n")
    assert pam.lines() == [PamLine("session", control, module, args, False, pam.at("sshd", 2))]
    pam.write("sshd", f"-{text}\n")
    assert pam.lines() == [PamLine("session", control, module, args, True, pam.at("sshd", 1))]
    assert pam.lines(kind="auth") == []


@pytest.mark.parametrize(
    ("text", "control", "module", "args"),
    [
        ("sessions required pam_a.so x", "required", "pam_a.so", ("x",)),
        ("- required pam_a.so", "required", "pam_a.so", ()),
        ("--session required pam_a.so", "required", "pam_a.so", ()),
    ],
)
def test_pam_stack__a_kind_that_there_is_not_counts_among_the_strictest(
    pam: Files, text: str, control: str, module: str, args: tuple[str, ...]
) -> None:
    pam.write("sshd", text + "\n")
    broken = PamLine("auth", control, module, args, text.startswith("-"), pam.at("sshd", 1), 0, "broken")
    assert pam.lines(kind="auth") == [broken]
    for kind in KINDS[1:]:
        assert pam.lines(kind=kind) == []


def test_pam_stack__words_that_are_missing(pam: Files) -> None:
    pam.write("sshd", "session\nsession required\nsession include\nsession substack\n")
    assert pam.lines() == [
        PamLine("session", "bad", "", (), False, pam.at("sshd", 1), 0, "broken"),
        PamLine("session", "required", "", (), False, pam.at("sshd", 2), 0, "broken"),
        PamLine("session", "required", "", (), False, pam.at("sshd", 3), 0, "broken"),
        PamLine("session", "substack", "", (), False, pam.at("sshd", 4), 0, "substack"),
        PamLine("session", "required", "", (), False, pam.at("sshd", 4), 0, "broken"),
    ]


def test_pam_stack__includes_and_substacks(pam: Files) -> None:
    pam.write("sshd", "session include one\n-session Substack two # why\n@include three\nsession optional pam_z.so\n")
    pam.write("one", "@include three\nfoo required pam_x.so\nauth required pam_x.so\n")
    pam.write("two", "session substack three\nsession required pam_b.so\n")
    pam.write("three", "bar required pam_y.so\nsession required pam_c.so\n")
    broken = PamLine("session", "required", "pam_x.so", (), False, pam.at("one", 2), 0, "broken")
    # within an include, what libpam does not understand counts for the group that it includes
    odd = PamLine("session", "required", "pam_y.so", (), False, pam.at("three", 1), 0, "broken")
    third = PamLine("session", "required", "pam_c.so", (), False, pam.at("three", 2))
    deep = [replace(line, level=2) for line in (odd, third)]
    assert pam.lines() == [
        odd,
        third,
        broken,
        PamLine("session", "Substack", "two", (), True, pam.at("sshd", 2), 0, "substack"),
        PamLine("session", "substack", "three", (), False, pam.at("two", 1), 1, "substack"),
        *deep,
        PamLine("session", "required", "pam_b.so", (), False, pam.at("two", 2), 1),
        third,
        PamLine("session", "optional", "pam_z.so", (), False, pam.at("sshd", 4)),
    ]
    assert [line.module for line in pam.lines(kind="auth")] == ["pam_y.so"]


def test_pam_stack__what_is_included_is_missing(pam: Files) -> None:
    pam.write("sshd", "-session include nowhere\nsession substack nowhere\nsession include one\n")
    pam.write("one", "@include nowhere\n@include\nsession required pam_a.so\n")
    assert pam.lines() == [
        PamLine("session", "required", "nowhere", (), True, pam.at("sshd", 1), 0, "broken"),
        PamLine("session", "substack", "nowhere", (), False, pam.at("sshd", 2), 0, "substack"),
        PamLine("session", "required", "nowhere", (), False, pam.at("sshd", 2), 0, "broken"),
        PamLine("session", "required", "nowhere", (), False, pam.at("one", 1), 0, "broken"),
        PamLine("session", "required", "", (), False, pam.at("one", 2), 0, "broken"),
        PamLine("session", "required", "pam_a.so", (), False, pam.at("one", 3)),
    ]


@pytest.mark.parametrize("end", ["@include nowhere\nsession required pam_b.so\n", "session required \\"])
def test_pam_stack__a_file_that_libpam_refuses(pam: Files, end: str) -> None:
    pam.write("sshd", f"session required pam_a.so\n{end}")
    stack = read_stack("sshd", "session", str(pam.root))
    assert stack.doubts == (f"{pam.folder}/sshd: libpam refuses this file",)
    assert [line.module for line in stack.lines] == ["pam_a.so"]


@pytest.mark.parametrize("control", ["include", "substack"])
def test_pam_stack__the_deepest(pam: Files, control: str) -> None:
    pam.write("sshd", f"session {control} f1\n")
    for depth in range(1, DEPTH_CAP + 3):
        pam.write(f"f{depth}", f"session {control} f{depth + 1}\nsession optional pam_{depth}.so\n")
    lines = [line for line in pam.lines() if line.what != "substack"]
    assert lines[0].what == "broken"
    assert lines[0].origin == pam.at(f"f{DEPTH_CAP - 1}", 1)
    levels = range(DEPTH_CAP - 1, 0, -1) if control == "substack" else [0] * (DEPTH_CAP - 1)
    assert [(line.module, line.level) for line in lines[1:]] == [
        (f"pam_{depth}.so", level) for depth, level in zip(range(DEPTH_CAP - 1, 0, -1), levels)
    ]


def test_pam_stack__too_many_lines(pam: Files) -> None:
    pam.write("sshd", "session required pam_a.so\n" * (LINE_CAP + 1) + "@include nowhere\n")
    stack = read_stack("sshd", "session", str(pam.root))
    assert stack.doubts == (f"{pam.at('sshd', LINE_CAP + 1)}: more than {LINE_CAP} lines",)
    assert len(stack.lines) == LINE_CAP


@pytest.mark.parametrize("between", ["\n", "  \t\n", "# why\n"])
def test_pam_stack__a_line_that_goes_on_behind_a_blank_one(pam: Files, between: str) -> None:
    pam.write("sshd", f"session required \\\n{between}pam_a.so\nsession required pam_b.so\n")
    stack = read_stack("sshd", "session", str(pam.root))
    assert stack.doubts == (f"{pam.at('sshd', 1)}: a continued line before a blank one or a comment",)
    assert [(line.kind, line.module, line.origin) for line in stack.lines] == [
        ("session", "pam_a.so", pam.at("sshd", 1)),
        ("session", "pam_b.so", pam.at("sshd", 4)),
    ]


ONE_FILE = """\
# who, and what
sshd session required pam_a.so a [b c]
SSHD  -session optional pam_b.so
su session required pam_no.so
sshd session substack one
other session required pam_o.so
"""


def test_pam_stack__one_file_for_all_services(tmp_path: Path) -> None:
    file = tmp_path / "etc/pam.conf"
    file.parent.mkdir()
    file.write_text(ONE_FILE)
    stack = read_stack("sshd", "session", str(tmp_path))
    assert stack.doubts == ()
    assert list(stack.lines) == [
        PamLine("session", "required", "pam_a.so", ("a", "b c"), False, f"{file}:2"),
        PamLine("session", "optional", "pam_b.so", (), True, f"{file}:3"),
        PamLine("session", "substack", "one", (), False, f"{file}:5", 0, "substack"),
        PamLine("session", "required", "one", (), False, f"{file}:5", 0, "broken"),
    ]
    assert [line.module for line in read_stack("login", "session", str(tmp_path)).lines] == ["pam_o.so"]
    file.write_text("su session required \\\n\npam_x.so\nsshd session required \\\n#\npam_a.so\n")
    assert read_stack("login", "session", str(tmp_path)).doubts == ()
    stack = read_stack("sshd", "session", str(tmp_path))
    assert stack.doubts == (f"{file}:4: a continued line before a blank one or a comment",)
    assert [line.module for line in stack.lines] == ["pam_a.so"]
    file.write_text("sshd session required pam_a.so\nsu session required \\")
    stack = read_stack("sshd", "session", str(tmp_path))
    assert stack.doubts == (f"{file}: libpam refuses this file",)
    assert [line.module for line in stack.lines] == ["pam_a.so"]
    file.unlink()
    assert read_stack("sshd", "session", str(tmp_path)).lines == ()


def test_pam_stack__where_a_service_is_looked_for(pam: Files) -> None:
    pam.write("other", "session required pam_o.so\n")
    assert [line.module for line in pam.lines()] == ["pam_o.so"]
    vendors = pam.root / "usr/lib/pam.d"
    vendors.mkdir(parents=True)
    (vendors / "sshd").write_text("session required pam_v.so\n")
    assert [line.module for line in pam.lines()] == ["pam_v.so"]
    (pam.folder / "sshd").mkdir()  # a folder is no file, and the search goes on
    assert [line.module for line in pam.lines()] == ["pam_v.so"]
    (pam.folder / "sshd").rmdir()
    pam.write("sshd", "session required pam_s.so\n")
    assert [line.module for line in pam.lines()] == ["pam_s.so"]
    (pam.root / "etc/x").write_text("session required pam_x.so\n")
    pam.write(".hidden", "session required pam_h.so\n")
    for name in ("../x", ".hidden", "/etc/x"):
        assert [line.module for line in pam.lines(name)] == ["pam_o.so"]


def test_pam_stack__what_is_no_text_and_no_file(pam: Files) -> None:
    (pam.folder / "sshd").write_bytes(b"session required pam_\xff.so\n")
    assert [line.module for line in pam.lines()] == ["pam_\ufffd.so"]
    (pam.folder / "sshd").unlink()
    os.mkfifo(pam.folder / "sshd")  # nobody waits for somebody to write into it
    assert pam.lines() == []


def test_pam_stack__a_file_too_long_to_be_read_to_its_end(pam: Files) -> None:
    text = "session required pam_a.so\n"
    pam.write("sshd", text + "#" * (FILE_CAP - len(text) - 1))
    assert len(pam.lines()) == 1
    pam.write("sshd", text + "#" * (FILE_CAP - len(text)))
    assert read_stack("sshd", "session", str(pam.root)).doubts == (f"{pam.folder}/sshd: more than 256 KiB",)


def test_pam_stack__a_folder_of_files_takes_the_place_of_the_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pam_stack, "SETTLED_NS", -(10**12))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/pam.conf").write_text("sshd session required pam_a.so\n")
    stacks = KnownStacks()
    seen = []
    for _ in range(2):
        seen.append([line.module for line in stacks.read("sshd", "session", str(tmp_path)).lines])
        assert len(stacks.known) == 1
        if not (tmp_path / "etc/pam.d").exists():
            Files(tmp_path).write("sshd", "session required pam_b.so\n")
    assert seen == [["pam_a.so"], ["pam_b.so"]]


def test_pam_stack__services_that_have_a_file(pam: Files) -> None:
    for name in ("sshd", "su-l", ".hidden", "sshd~", "a~b"):
        pam.write(name, "")
    (pam.root / "usr/lib/pam.d").mkdir(parents=True)
    (pam.root / "usr/lib/pam.d/login").touch()
    assert list_services(str(pam.root)) == ["login", "sshd", "su-l"]


def test_pam_stack__without_a_root_it_is_this_machine() -> None:
    assert list_services() == list_services("")
    for service in ("other", "login", "sshd"):
        assert read_stack(service, "auth") == read_stack(service, "auth", "") == KnownStacks().read(service, "auth")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n\n", []),
        ("a", [(1, "a")]),
        ("a\nb", [(1, "a"), (2, "b")]),
        (" \ta \t\n# x\n  # y\n\nb#c\n", [(1, "a"), (5, "b")]),
        ("a  # b \\\nc", [(1, "a  "), (2, "c")]),
        ("a \\ \t\nb\\\nc \nd", [(1, "a  b c"), (4, "d")]),
        ("a\\\n  # x\nb", [(1, "\\a b")]),
        ("a\\\n\n\nb\\\nc\nd", [(1, "\\a b c"), (6, "d")]),
        ("a\\\n\nb\\\n\n", [(1, None)]),
        ("x\na\\", [(1, "x"), (2, None)]),
        ("a\\\\\nb", [(1, "a\\ b")]),
        ("\\\nb\n", [(1, " b")]),
        ("\fa\f\n\r\n\v\\\nb\r", [(1, "\fa\f"), (2, "\r"), (3, "\v b\r")]),
    ],
)
def test_pam_stack__lines(text: str, lines: list[tuple[int, str | None]]) -> None:
    assert list(assemble_lines(text)) == lines


@pytest.mark.parametrize(
    ("text", "start", "word", "end"),
    [
        ("", 0, None, 0),
        (" \t\n", 0, None, 3),
        ("ab", 2, None, 2),
        ("ab cd", 0, "ab", 2),
        ("ab cd", 2, "cd", 5),
        ("\tab\n", 0, "ab", 3),
        ("a[b] c", 0, "a[b]", 4),
        ("[a b]c", 0, "a b", 5),
        ("[a][b]", 3, "b", 6),
        ("[]c", 0, "", 2),
        ("[", 0, "", 1),
        ("[ab", 0, "ab", 3),
        ("[a\\]b]", 0, "a]b", 6),
        ("[a\\]] c", 0, "a]", 5),
        ("[a\\b]", 0, "a\\b", 5),
        ("[a\\]", 0, "a]", 4),
    ],
)
def test_pam_stack__tokens(text: str, start: int, word: str | None, end: int) -> None:
    assert next_token(text, start) == (word, end)
