# SPDX-License-Identifier: Apache-2.0
"""Files that are believed because of who may write them, and files that we make."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_adopt.system.tasks import files
from slurm_adopt.system.tasks.files import (
    UntrustedFile,
    append,
    draft_of,
    is_private,
    make_folder,
    other_writers,
    read_if_trusted,
    read_trusted,
    replace_file,
    take_lines,
)

ME = os.geteuid()
OWNERS = (ME,)
needs_root = pytest.mark.skipif(ME != 0, reason="gives files to others")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"said\n")
    made.chmod(0o644)
    return made


def state(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def set_access_list(path: Path, uid: int) -> None:
    """As `setfacl -m u:UID:rw`: version 2, then tag, rights and id of each entry (acl(5), Linux)."""
    entries = [(0x01, 6, 2**32 - 1), (0x02, 6, uid), (0x04, 4, 2**32 - 1), (0x10, 6, 2**32 - 1), (0x20, 4, 2**32 - 1)]
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, files.ACCESS_LIST, data)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this file system has no access lists")


# Who may write ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "owners", "said"),
    [
        (0o644, 0, 0, (0,), ""),
        (0o755, 0, 7, (0,), ""),
        (0o600, 64030, 64030, (0, 64030), ""),
        (0o664, 0, 0, (0,), ""),
        (0o600, 1501, 0, (0,), "belongs to uid 1501: chown root /x"),
        (0o600, 1501, 0, (0, None), "belongs to uid 1501: chown root /x"),
        (0o600, 1501, 0, None, ""),
        (0o622, 0, 0, (0,), "everybody may write it: chmod go-w /x"),
        (0o602, 0, 0, (0,), "everybody may write it: chmod go-w /x"),
        (0o1777, 0, 0, (0,), "everybody may write it: chmod go-w /x"),
        (0o664, 0, 7, (0,), "group 7 may write it: chmod g-w /x"),
        (0o664, 64030, 64030, (0, 64030), "group 64030 may write it: chmod g-w /x"),
    ],
)
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
def test_files__who_else_may_write(
    kind: int, mode: int, uid: int, gid: int, owners: tuple[int | None, ...] | None, said: str
) -> None:
    found = os.stat_result((kind | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))
    if mode & 0o020 and gid == 0 and not said:
        return  # the access list of /x is looked at; the next test has a file
    assert other_writers("/x", found, owners) == said


def test_files__a_group_may_be_left_to_the_caller() -> None:
    found = state(stat.S_IFREG | 0o664, gid=7)
    assert other_writers("/x", found, (0,))
    assert other_writers("/x", found, (0,), any_group=True) == ""
    assert other_writers("/x", state(stat.S_IFREG | 0o666, gid=7), (0,), any_group=True)


@needs_root
def test_files__group_0_may_write_but_nobody_whom_an_access_list_names(file: Path) -> None:
    file.chmod(0o664)
    assert other_writers(str(file), file.stat()) == ""
    assert read_if_trusted(str(file), 10) == b"said\n"
    set_access_list(file, 1501)
    assert stat.S_IMODE(file.stat().st_mode) == 0o664, "the list's mask looks like the group's rights"
    assert other_writers(str(file), file.stat()) == f"an access list lets others write it: setfacl -b {file}"
    assert read_if_trusted(str(file), 10) is None


def test_files__private_folders() -> None:
    assert is_private(state(stat.S_IFDIR | 0o700, 1501), 1501)
    for kind, mode, uid in ((stat.S_IFDIR, 0o710, 1501), (stat.S_IFDIR, 0o700, 0), (stat.S_IFREG, 0o700, 1501)):
        assert not is_private(state(kind | mode, uid), 1501)


# Reading ---------------------------------------------------------------------------------------------


def test_files__read_what_only_the_owners_may_write(file: Path) -> None:
    assert read_trusted(str(file), OWNERS, 5) == b"said\n"
    assert read_trusted(str(file), (ME + 1, ME), 100) == b"said\n"
    with pytest.raises(UntrustedFile, match="belongs to uid"):
        read_trusted(str(file), (ME + 1,), 100)
    with pytest.raises(UntrustedFile, match="more than 4 bytes"):
        read_trusted(str(file), OWNERS, 4)
    with pytest.raises(FileNotFoundError):
        read_trusted(f"{file}.x", OWNERS, 4)
    assert read_if_trusted(f"{file}.x", 100, OWNERS) is None


@pytest.mark.parametrize(("mode", "good"), [(0o640, True), (0o600, True), (0o604, False), (0o601, False)])
def test_files__a_secret_is_read_by_few(file: Path, mode: int, good: bool) -> None:
    file.chmod(mode)
    if good:
        assert read_trusted(str(file), OWNERS, 100, secret=True) == b"said\n"
    else:
        with pytest.raises(UntrustedFile, match=f"chmod o= {file}"):
            read_trusted(str(file), OWNERS, 100, secret=True)
    assert read_trusted(str(file), OWNERS, 100) == b"said\n"


@pytest.fixture(params=["fifo", "folder", "device", "socket"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / request.param)
    if request.param == "device":
        yield "/dev/null"
        return
    if request.param == "fifo":
        os.mkfifo(path, 0o600)
    elif request.param == "folder":
        os.mkdir(path, 0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        if request.param == "socket":
            listener.bind(path)
        yield path


def test_files__what_is_no_file_is_neither_read_nor_appended_to(no_file: str) -> None:
    owners = (0, ME)
    why = "not a regular file|Is a directory|No such device or address"
    with pytest.raises(OSError, match=why):
        read_trusted(no_file, owners, 100)
    with pytest.raises(OSError, match=why):
        append(no_file, b"x\n", owners=owners)
    with pytest.raises(OSError, match=why):
        take_lines(no_file, 100, owners=owners)


def test_files__links_are_followed_only_where_the_caller_says_so(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_if_trusted(str(link), 100, OWNERS) is None
    assert read_trusted(str(link), OWNERS, 100, follow=True) == b"said\n"
    with pytest.raises(OSError, match="symbolic"):
        append(str(link), b"x\n", owners=OWNERS)
    replace_file(str(link), b"new\n", 0o600)
    assert (link.is_symlink(), link.read_bytes(), file.read_bytes()) == (False, b"new\n", b"said\n")


def test_files__a_second_name_is_read_but_not_appended_to(file: Path, tmp_path: Path) -> None:
    os.link(file, tmp_path / "other")
    assert read_trusted(str(file), OWNERS, 100) == b"said\n"
    with pytest.raises(UntrustedFile, match="2 names"):
        append(str(file), b"x\n", owners=OWNERS)
    with pytest.raises(UntrustedFile, match="2 names"):
        take_lines(str(file), 100, owners=OWNERS)
    assert file.read_bytes() == b"said\n"


def test_files__a_lack_of_our_own_is_no_untrusted_file(file: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read_if_trusted(str(file), 100, OWNERS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Making and replacing --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_files__replaced_as_a_whole(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    old = os.umask(0o077)
    try:
        for data in (b"one", b"", b"x" * 3_000_000):
            replace_file(str(path), data, mode)
            assert path.read_bytes() == data
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files__a_draft_is_hidden_and_nobodys_metrics(tmp_path: Path) -> None:
    draft = Path(draft_of(str(tmp_path / "numbers.prom")))
    assert draft.parent == tmp_path
    assert draft.name.startswith(".numbers.prom.")
    assert draft.suffix != ".prom", "node_exporter reads what ends so"


def test_files__what_lies_under_the_drafts_name_is_not_written_to(tmp_path: Path, file: Path) -> None:
    path = str(tmp_path / "new")
    os.symlink(file, draft_of(path))
    replace_file(path, b"new\n", 0o600)
    assert file.read_bytes() == b"said\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "new"]


def test_files__a_draft_goes_on_every_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "folder"), b"x", 0o600)  # a folder cannot be replaced by a file

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_file(str(path), b"new", 0o600)
    monkeypatch.undo()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert path.read_bytes() == b"old"


def test_files__a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with _file_size(1000), pytest.raises(OSError, match="File too large"):
        replace_file(str(path), b"x" * 3000, 0o600)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


def test_files__folders(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(str(folder), 0o700, OWNERS)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    make_folder(str(folder), 0o755, OWNERS)
    folder.chmod(0o707)
    with pytest.raises(UntrustedFile, match=f"chmod go-w {folder}"):
        make_folder(str(folder), 0o700, OWNERS)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(str(tmp_path / "file"), 0o700, OWNERS)


# Appending -------------------------------------------------------------------------------------------


class _file_size:  # noqa: N801  a context manager
    """No file may grow beyond this size: the kernel then writes a part, as it does when a disk is full."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.old[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.old)


def test_files__lines_come_back_once_and_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "lines")
    with pytest.raises(FileNotFoundError):
        append(path, b"one\n", create=False, owners=OWNERS)
    assert take_lines(path, 100, OWNERS) == b""
    append(path, b"one\n", create=False, owners=OWNERS)
    append(path, b"two\n", owners=OWNERS)
    assert take_lines(path, 100, OWNERS) == b"one\ntwo\n"
    assert take_lines(path, 100, OWNERS) == b""
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_files__no_partial_line_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(str(path), b"whole\n", owners=OWNERS)
    with _file_size(10):
        with pytest.raises(OSError, match="No space left"):
            append(str(path), b"a line that does not fit\n", owners=OWNERS)
        assert path.read_bytes() == b"whole\n"
        append(str(path), b"fits", owners=OWNERS)
    assert path.read_bytes() == b"whole\nfits"


def test_files__a_cap_on_what_nobody_takes(tmp_path: Path) -> None:
    path = str(tmp_path / "lines")
    append(path, b"x" * 10, cap=10, owners=OWNERS)
    with pytest.raises(OSError, match="File too large"):
        append(path, b"x", cap=10, owners=OWNERS)
    assert os.stat(path).st_size == 10


@pytest.mark.parametrize(
    "act", [lambda path: append(path, b"x\n", owners=OWNERS), lambda path: take_lines(path, 9, OWNERS)]
)
def test_files__nobody_waits_for_a_lock(file: Path, act) -> None:  # type: ignore[no-untyped-def]
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open(file, os.O_RDWR)
        os.lockf(fd, os.F_LOCK, 0)
        os.write(ready[1], b"1")
        os.close(go[1])
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(BlockingIOError):
            act(str(file))
        assert file.read_bytes() == b"said\n"
    finally:
        for fd in (*ready, *go):
            os.close(fd)
        os.waitpid(pid, 0)


@needs_root
def test_files__of_others_are_not_appended_to(file: Path) -> None:
    os.chown(file, 1501, 0)
    with pytest.raises(UntrustedFile, match="belongs to uid 1501"):
        append(str(file), b"x\n")
    assert file.read_bytes() == b"said\n"
