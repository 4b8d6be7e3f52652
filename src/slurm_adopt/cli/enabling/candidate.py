# SPDX-License-Identifier: Apache-2.0
"""The node's PAM files with one of them replaced, in a folder of root's own: for the doctor's checks, and for libpam.

Rules of this file:
1. The node's own files are read, never written. Modules are the node's.
2. All files of libpam's folders lie in one here, those of /etc over the vendor's. Whether libpam looks for what a stack
   includes in this folder, or in its own (seen on 1.5.2 with pam_start_confdir(3)), makes no difference.
"""

from __future__ import annotations

import os
import re

from ...system.host.pam_stack import DIRECTORIES
from ...system.tasks.files import make_folder, remove, replace_file
from ..doctor.node import Node

#: Includes by path lead out of libpam's folders.
BY_PATH = re.compile(rb"(?:include|substack)\s+(/[^\s#]+)")
SITE = DIRECTORIES[0]


class Candidate(Node):
    """`folder` is made, and goes with `close`. Where a message names a file of it, `shown` says what it stands for."""

    def __init__(self, node: Node, folder: str) -> None:
        super().__init__(folder, node.nodename, node.deadline_ns)
        self.node = node
        self.confdir = f"{folder}{SITE}"
        self._made: list[str] = []
        self._folders: list[str] = []
        texts = {}
        for directory in reversed(DIRECTORIES):
            for path in node.glob(f"{directory}/[!.]*"):
                data = node.read(path)
                if data is not None:
                    texts[f"{SITE}/{path.rpartition('/')[2]}"] = data
        self._folder(self.confdir)
        for path, data in texts.items():
            self._write(path, data)

    def _write(self, path: str, data: bytes) -> None:
        full = f"{self.root}{path}"
        replace_file(full, data, 0o600)
        self._made.append(full)
        for name in BY_PATH.findall(data):
            other = os.path.normpath(os.fsdecode(name))
            found = self.node.read(other) if not os.path.exists(f"{self.root}{other}") else None
            if found is not None and other.rpartition("/")[0] != SITE:
                self._folder(os.path.dirname(f"{self.root}{other}"))
                self._write(other, found)

    def _folder(self, path: str) -> None:
        if path not in self._folders:
            make_folder(path, 0o700, (os.geteuid(),))
            self._folders.append(path)

    def put(self, service: str, data: bytes) -> None:
        """Give the service's own file another text."""
        self._write(f"{SITE}/{service}", data)

    def place(self, path: str) -> str:
        """PAM's files are here; everything else is where the node has it."""
        ours = os.path.exists(f"{self.root}{path}") or path.startswith(tuple(f"{one}/" for one in DIRECTORIES))
        return f"{self.root}{path}" if ours else self.node.place(path)

    def shown(self, text: str) -> str:
        """The text with the node's paths."""
        return text.replace(self.root, "")

    def close(self) -> None:
        """Nothing is left of it."""
        for path in self._made:
            remove(path)
        for folder in reversed(self._folders):
            while folder.startswith(self.root):
                try:
                    os.rmdir(folder)
                except OSError:
                    break
                folder = os.path.dirname(folder)
