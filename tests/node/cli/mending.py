# SPDX-License-Identifier: Apache-2.0
"""An administrator who does what the doctor says, to the letter: types commands, writes lines, moves lines.

What takes an installation, or knowledge that the doctor has not (which group was meant), is not done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lab.machine import wait_for
from lab.node import Node

COMMANDS = ("chmod", "chown", "setfacl", "sed", "LC_ALL=C", "rm", "ln", "cp", "mkdir", "printf", "mount")
#: What systemd would start; it does not run on these nodes.
DAEMONS = {"munge": "munged", "slurmd": "slurmd", "sshd": "ssh_server"}
PLACE = r"(/\S+?):(\d+)"
#: Where slurm.conf is on a node of the lab, in both of its places.
SLURM = ("/etc/slurm", "/etc/slurm-llnl")


def mend(node: Node, text: str) -> bool:
    """Do it; false if it is not for a pair of hands alone."""
    if "\nremove " in text:
        return all(mend(node, line) for line in text.split("\n"))
    for pattern, act in ACTS:
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found:
            act(node, *found.groups())
            return True
    first = text.split("\n")[0]
    if first.split(" ")[0] in COMMANDS:
        node.run(["sh", "-ec", text.replace(" && systemctl daemon-reload", "")])
        return True
    return False


def _lines(node: Node, path: str, change: Callable[[list[str]], list[str]]) -> None:
    file = node.path(path)
    before = file.read_text().split("\n")
    after = change(list(before))
    assert after != before
    file.write_text("\n".join(after))


def _instead(node: Node, line: str, path: str, number: str) -> None:
    _lines(node, path, lambda rows: [*rows[: int(number) - 1], line, *rows[int(number) :]])


def _last(node: Node, line: str, path: str) -> None:
    _lines(node, path, lambda rows: [*rows, line])


def _first(node: Node, line: str, path: str) -> None:
    _lines(node, path, lambda rows: [line, *rows])


def _conf(node: Node, text: str, name: str) -> None:
    """The last value of a key holds."""
    for folder in SLURM:
        if node.path(f"{folder}/{name}").exists():
            _lines(node, f"{folder}/{name}", lambda rows: [*rows, *text.split("\n"), ""])


def _take_out(node: Node, word: str, places: str) -> None:
    for path, number in re.findall(PLACE, places):
        _lines(node, path, lambda rows, at=int(number) - 1: [  # type: ignore[misc]
            re.sub(rf"\s{re.escape(word)}(=\S*)?(?=\s|$)", "", row) if place == at else row for place, row in enumerate(rows)
        ])  # fmt: skip


def _add(node: Node, word: str, places: str) -> None:
    for path, number in re.findall(PLACE, places):
        _lines(node, path, lambda rows, at=int(number) - 1: [  # type: ignore[misc]
            f"{row.rstrip()} {word}" if place == at else row for place, row in enumerate(rows)
        ])  # fmt: skip


def _remove(node: Node, path: str, number: str) -> None:
    _lines(node, path, lambda rows: rows[: int(number) - 1] + rows[int(number) :])


def _required(node: Node, path: str, number: str) -> None:
    """`required` in the control's place."""
    control = re.compile(r"^(\s*-?\w+\s+)(\[[^\]]*\]|\[.*(?=\s+pam_)|\S+)")
    _lines(node, path, lambda rows: [control.sub(r"\1required", row) if place == int(number) - 1 else row for place, row in enumerate(rows)])  # fmt: skip


def _move(node: Node, path: str, number: str, other: str, above: str) -> None:
    """Above a line of the same file, or above the line that brings the other file in."""
    row = node.path(path).read_text().split("\n")[int(number) - 1]
    name = other.rpartition("/")[2]

    def change(rows: list[str]) -> list[str]:
        target = (
            int(above) - 1 if other == path else next(at for at, one in enumerate(rows) if one.split()[-1:] == [name])
        )
        del rows[int(number) - 1]
        rows.insert(target, row)
        return rows

    _lines(node, path, change)


def _to_the_end(node: Node, path: str, number: str, target: str) -> None:
    row = node.path(path).read_text().split("\n")[int(number) - 1]
    assert path == target
    _lines(node, path, lambda rows: [one for place, one in enumerate(rows) if place != int(number) - 1] + [row])


def _daemon(node: Node, verb: str, name: str) -> None:
    daemon = getattr(node, DAEMONS[name])
    if verb == "restart":
        daemon.resume()
        daemon.stop()
    daemon.start()
    if name == "munge":
        wait_for(lambda: node.run("munge -n | unmunge", check=False).returncode == 0, "munged")


ACTS: list[tuple[str, Callable[..., None]]] = [
    (rf"(.*?)    # instead of {PLACE}", _instead),
    (r"(.*?)    # last in (/\S+)", _last),
    (r"(.*?)    # in (/\S+), before what it includes", _first),
    (r"(\w+=.*?)    # in (slurm\.conf|cgroup\.conf)\b.*", _conf),
    (rf"take (\S+?)=? out of ((?:{PLACE}(?: and )?)+).*", lambda node, word, places, *_: _take_out(node, word, places)),
    (rf"add (\S+) (?:\(or \S+\) )?to ((?:{PLACE}(?: and )?)+).*", lambda node, word, places, *_: _add(node, word, places)),
    (rf"(?:install \S+, or |put the file back, or |name it, or )?remove {PLACE}\b.*", _remove),
    (rf"write `required` \(or what was meant\) in {PLACE}", _required),
    (rf"move {PLACE} above {PLACE},.*", _move),
    (rf"make {PLACE} the last session line of (/\S+)", _to_the_end),
    (r"systemctl (start|restart) (munge|slurmd|sshd)\b.*", _daemon),
]  # fmt: skip
