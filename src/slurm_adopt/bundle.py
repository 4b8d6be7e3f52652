# SPDX-License-Identifier: Apache-2.0
"""The modules that every one-shot login loads, in one file.

To find and read 35 modules one by one takes a seventh of a one-shot login's time; out of one file they come 1.4 ms
sooner (Python 3.11, seen on a machine whose bare Python takes 7 ms).

Rules of this file:
1. The bundle is made when the package is installed (`bundling.py`), by the Python that will read it and from the files
   that lie beside it. It is worth as much as they are: the directory is root's.
2. A module whose file has been changed since (time or size, as for a .pyc) is not taken from the bundle. Another
   Python, a damaged bundle or none at all: the modules are imported one by one, as ever.
3. It imports what the interpreter has loaded anyway.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery costs a millisecond
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    # name: (file, time of its last change in s, size, whether it is a package, its code)
    Modules = dict[str, tuple[str, int, int, bool, CodeType]]

NAME = "oneshot.bundle"


class Bundle:
    """Finds and loads modules for the import system."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> object:
        """A module's spec, None if it is not here, or not as it is in its file."""
        known = self.modules.get(name)
        if known is None or state_of(known[0]) != known[1:3]:
            return None
        spec = ModuleSpec(name, self, origin=known[0])  # type: ignore[arg-type]  # a Loader in all but its base class
        spec.has_location = True
        if known[3]:
            spec.submodule_search_locations = [os.path.dirname(known[0])]
        return spec

    def create_module(self, _spec: object) -> None:
        """Return None: Python creates the module object itself."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self.modules[module.__name__][4], module.__dict__)  # noqa: S102  # rule 1


def state_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return int(found.st_mtime), found.st_size


def use_bundle(folder: str) -> bool:
    """Take modules from the bundle in this folder from now on; whether there is one for this Python."""
    try:
        with open(f"{folder}/{NAME}", "rb") as file:
            magic, modules = file.read(len(MAGIC_NUMBER)), file.read()
        if magic != MAGIC_NUMBER:
            return False
        sys.meta_path.insert(0, Bundle(marshal.loads(modules)))  # type: ignore[arg-type]  # noqa: S302  # rule 1
    except (OSError, ValueError, EOFError, TypeError):
        return False
    return True
