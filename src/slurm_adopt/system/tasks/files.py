# SPDX-License-Identifier: Apache-2.0
"""Files that are believed because of who may write them, and files that we make: one way for each.

Rules of this file:
1. One decision who may write a file or folder (`other_writers`): its owner is one of the allowed ones, not everybody
   may write it, and a group may only if it is gid 0. The mask of a POSIX access list shows as the group's rights: where
   group 0 may write, a list that names further users is refused. Links are not followed unless the caller says so.
2. What was opened is what is judged and read. A FIFO, a device, a folder or a socket never counts as a file, and does
   not make the reader wait. A second name (hard link) does no harm to a reader, who believes the owner, not the name.
   It is refused where something is appended: the other name may be that of another file.
3. A file is replaced as a whole: written under its draft's name, then renamed. A reader sees the old or the new one. A
   draft is removed on every error. Hardly anything here needs to outlive the machine (it is below /run, or is written
   again); only what must, waits for the disk (`replace_for_good`, `keep_copy`, `put_back`).
4. What is appended stands there whole or not at all.
"""

from __future__ import annotations

import errno
import os
import stat

from .task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    #: uids that may write; None stands for a user who does not exist
    Owners = tuple[Optional[int], ...]

ROOT: Owners = (0,)
#: acl(5); there is one only where somebody has more rights than the mode says.
ACCESS_LIST = "system.posix_acl_access"
#: SELinux's; setxattr(2) is refused where there is none, and nothing is to be set then.
LABEL = "security.selinux"
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
APPEND = os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
PIECE = 1 << 20


class UntrustedFile(OSError):
    """Somebody else may write the file, or it is none; `strerror` says what to mend."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPERM, what)


def other_writers(
    path: str, found: os.stat_result, owners: Owners | None = ROOT, fd: int = -1, any_group: bool = False
) -> str:
    """Who else than `owners` may write `path`, and what to do about it, in words; empty if nobody may.

    `found` and, if it is open, `fd` are of the file or folder. `owners` None: the owner is judged elsewhere.
    """
    if owners is not None and found.st_uid not in owners:
        return f"belongs to uid {found.st_uid}: chown root {path}"
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write it: chmod go-w {path}"
    if found.st_mode & stat.S_IWGRP and not any_group:
        if found.st_gid != 0:
            return f"group {found.st_gid} may write it: chmod g-w {path}"
        if _has_access_list(path if fd < 0 else fd):
            return f"an access list lets others write it: setfacl -b {path}"
    return ""


def _has_access_list(place: str | int) -> bool:
    try:
        os.getxattr(place, ACCESS_LIST)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


def is_sticky(found: os.stat_result) -> bool:
    """Whether in this folder, whoever may write to it, nobody may take away or replace what is another's."""
    return bool(found.st_mode & stat.S_ISVTX)


def is_store(found: os.stat_result) -> bool:
    """Whether this is a folder of root's that a group adds to, and takes nothing of root's away (/nix/store: 1775)."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and is_sticky(found) and not found.st_mode & stat.S_IWOTH


def is_private(found: os.stat_result, uid: int) -> bool:
    """Whether this is a folder of the user's that nobody else may even enter."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def is_read_by_others(found: os.stat_result) -> bool:
    """Whether everybody may do anything with a file that is a secret; who is in its group is the site's decision."""
    return bool(found.st_mode & stat.S_IRWXO)


# Reading -----------------------------------------------------------------------------------------------


def read_judged(path: str, judge: Callable[[int, os.stat_result], None], cap: int, follow: bool = False) -> bytes:
    """What a file holds if `judge(descriptor, state)` raises nothing: `cap` bytes, and one more if there is more.

    `judge` decides about everything, also whether it is a file. `OSError`.
    """
    fd = os.open(path, READ if follow else READ | os.O_NOFOLLOW)
    try:
        judge(fd, os.fstat(fd))
        return _read(fd, cap + 1)
    finally:
        os.close(fd)


def read_trusted(path: str, owners: Owners, cap: int, follow: bool = False, secret: bool = False) -> bytes:
    """What a file of at most `cap` bytes holds that nobody but `owners` may write; `OSError`.

    Where links are followed, the file is judged that they lead to. A `secret` may not be read by everybody either.
    """

    def judge(fd: int, found: os.stat_result) -> None:
        _judge_file(path, fd, found, owners)
        if secret and is_read_by_others(found):
            raise UntrustedFile(f"is a secret, and everybody may use it: chmod o= {path}")

    data = read_judged(path, judge, cap, follow)
    if len(data) > cap:
        raise UntrustedFile(f"more than {cap} bytes")
    return data


def read_if_trusted(path: str, cap: int, owners: Owners = ROOT) -> bytes | None:
    """As `read_trusted`; None if there is no such file, or none that may be believed."""
    try:
        return read_trusted(path, owners, cap)
    except OSError as error:
        raise_own_lack(error)
        return None


def _judge_file(path: str, fd: int, found: os.stat_result, owners: Owners) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedFile("not a regular file")
    others = other_writers(path, found, owners, fd)
    if others:
        raise UntrustedFile(others)


def _read(fd: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.read(fd, min(size, PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


# Making and replacing ----------------------------------------------------------------------------------


def make_folder(path: str, mode: int, owners: Owners = ROOT) -> None:
    """Make a folder, or be sure that nobody but `owners` may write it; `OSError`."""
    os.makedirs(path, mode, exist_ok=True)
    others = other_writers(path, os.stat(path), owners)
    if others:
        raise UntrustedFile(others)


def open_lock(path: str, owners: Owners = ROOT) -> int:
    """A file to be locked with flock(2); made (0600), as its folder is (0755), if it is not there.

    `OSError` unless nobody but `owners` may write the folder: who can take the file away takes the lock away.
    """
    folder = os.path.dirname(path)
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        os.mkdir(folder)
        os.chmod(folder, 0o755)  # noqa: S103  # whatever the umask is: sockets for all users may be in there
        found = os.lstat(folder)
    others = other_writers(folder, found, owners)
    if others:
        raise UntrustedFile(others)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def draft_of(path: str) -> str:
    """The name under which this process writes a file first: in the same folder, hidden, and without its ending."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{os.getpid()}"


def remove(path: str) -> None:
    """Remove a file if that is possible."""
    try:
        os.unlink(path)
    except OSError:
        return


def replace_file(path: str, data: bytes, mode: int) -> None:
    """Put a file of this mode in the place of `path`, whatever the umask; `OSError`.

    The folder may belong to somebody else: what is written to is a new file, and its descriptor.
    """
    _replace(path, data, lambda fd: os.fchmod(fd, mode))


def replace_for_good(path: str, data: bytes, mode: int = 0, like: str = "") -> None:
    """As `replace_file`, and on disk when it returns. `like`: with that file's mode, owner, label and access list."""

    def finish(fd: int) -> None:
        if like:
            _make_alike(fd, like)
        else:
            os.fchmod(fd, mode)
        os.fsync(fd)

    _replace(path, data, finish)
    sync_folder(path)


def _replace(path: str, data: bytes, finish: Callable[[int], None]) -> None:
    draft = draft_of(path)
    remove(draft)  # of a process that had our number
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            while data:
                data = data[os.write(fd, data) :]
            finish(fd)
        finally:
            os.close(fd)
        os.rename(draft, path)
    except BaseException:
        remove(draft)
        raise


def _make_alike(fd: int, like: str) -> None:
    """What stays out: what the kernel computes of the content (security.ima, security.evm)."""
    found = os.stat(like)
    os.fchown(fd, found.st_uid, found.st_gid)
    os.fchmod(fd, stat.S_IMODE(found.st_mode))
    try:
        names = os.listxattr(like)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    for name in names:
        if name in (LABEL, ACCESS_LIST) or name.startswith("user."):
            value = os.getxattr(like, name)
            if name not in os.listxattr(fd) or os.getxattr(fd, name) != value:
                os.setxattr(fd, name, value)


def keep_copy(path: str, copy: str) -> None:
    """Let what is in `path` now have the name `copy` as well, in the same folder, in place of what had it; `OSError`.

    A second name, not a second file: it has all that the first one has, takes no room, and whoever replaces the file
    leaves it alone.
    """
    draft = draft_of(copy)
    remove(draft)
    os.link(path, draft, follow_symlinks=False)
    try:
        os.rename(draft, copy)
    except BaseException:
        remove(draft)
        raise
    # rename(2) does nothing where both names are the same file's already
    remove(draft)
    sync_folder(path)


def put_back(copy: str, path: str) -> None:
    """Let what `keep_copy` has kept be in `path` again, from one moment to the next; it takes no room. `OSError`."""
    os.rename(copy, path)
    sync_folder(path)


def remove_for_good(path: str) -> None:
    """Remove a file, if it is there, and let the disk know; `OSError`."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_folder(path)


def sync_folder(path: str) -> None:
    """Let the disk know what names there are beside `path`; a file system that cannot do that keeps what it has."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


# Appending ---------------------------------------------------------------------------------------------


def append(path: str, line: bytes, create: bool = True, cap: int = 0, owners: Owners = ROOT) -> None:
    """Add a line to a file, or nothing; `OSError`.

    Nobody waits: `BlockingIOError` if another process is just writing. With `create` the file is made (0600) if it is
    not there. With `cap` a file that has so many bytes already gets no more.
    """
    fd = _open_to_append(path, os.O_WRONLY | (os.O_CREAT if create else 0), owners)
    try:
        _lock(fd)
        size = os.fstat(fd).st_size
        if cap and size >= cap:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if line and os.write(fd, line) != len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def take_lines(path: str, cap: int, owners: Owners = ROOT) -> bytes:
    """What was appended since the last time, at most `cap` bytes of it; the file is empty then, and there in any case.

    `OSError` (`BlockingIOError`: somebody is just writing).
    """
    fd = _open_to_append(path, os.O_RDWR | os.O_CREAT, owners)
    try:
        if not os.fstat(fd).st_size:
            return b""
        _lock(fd)
        data = _read(fd, cap)
        os.ftruncate(fd, 0)
        return data
    finally:
        os.close(fd)


def _open_to_append(path: str, flags: int, owners: Owners) -> int:
    fd = os.open(path, flags | APPEND, 0o600)
    try:
        found = os.fstat(fd)
        _judge_file(path, fd, found, owners)
        if found.st_nlink != 1:
            raise UntrustedFile(f"has {found.st_nlink} names (hard links)")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int) -> None:
    """For this process, at once. A file system without locks has none: its writers are few."""
    try:
        os.lockf(fd, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
