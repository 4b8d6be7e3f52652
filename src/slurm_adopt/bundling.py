# SPDX-License-Identifier: Apache-2.0
"""Makes the bundle that `bundle.py` reads: when the package is installed, and never at a login.

Rules of this file:
1. What is bundled does what its file does. Left out is what nobody can see in a login: docstrings, the annotations of
   functions, what is for type checkers only. To make these takes a tenth of the time that loading takes.
2. Annotations of classes stay: a `@record` is made of them. Assertions and line numbers stay.
"""

from __future__ import annotations

import ast
import importlib
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

from .bundle import NAME, state_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    from .bundle import Modules

#: Of the standard library; all else that a login needs is in the interpreter itself.
OTHERS = ("struct", "__future__")


class Lighter(ast.NodeTransformer):
    """A module without what nobody looks at while it runs."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                rest.annotation = None
        return self._without_docstring(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
        return self.generic_visit(node)


def lighter(source: bytes, path: str) -> CodeType:
    """The module's code."""
    tree = ast.fix_missing_locations(Lighter().visit(ast.parse(source, path)))
    return compile(tree, path, "exec", dont_inherit=True)


def make_bundle(folder: str, final: str) -> None:
    """Write the bundle into the folder that holds the package now and will be called `final`."""
    sys.path.insert(0, folder)
    importlib.import_module("slurm_adopt.login.helper")
    modules: Modules = {}
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        ours = path.startswith(f"{folder}/slurm_adopt/")
        if not path.endswith(".py") or not (name in OTHERS or ours) or name == __name__:
            continue
        state = state_of(path)
        assert state is not None, f"{path} was just imported"
        later = final + path[len(folder) :] if ours else path
        with open(path, "rb") as file:
            source = file.read()
        code = lighter(source, later) if ours else compile(source, later, "exec", dont_inherit=True)
        modules[name] = (later, *state, os.path.basename(path) == "__init__.py", code)
    draft = f"{folder}/{NAME}.{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(MAGIC_NUMBER + marshal.dumps(modules))
        os.fchmod(file.fileno(), 0o644)
    os.replace(draft, f"{folder}/{NAME}")
