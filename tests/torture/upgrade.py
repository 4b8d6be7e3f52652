# SPDX-License-Identifier: Apache-2.0
"""An upgrade of the package while people log in, by the same files: as `setup configure` and dpkg do it.

What logins use is a folder that a link leads to. Its copy takes the link from one moment to the next, the folder of
before stays until the next time, and every other file is replaced by rename. The services are restarted after that.
"""

from __future__ import annotations

from tests.torture.stage import Stage, TakeBack

from lab.node import Node

TOP = "/usr/lib/slurm-adopt"
#: Before anybody logs in: `make install` makes a folder where a package has a link.
_MAKE_LINK = f"""
set -e
[ -L {TOP} ] && exit
mv -T {TOP} {TOP}-tree-first
ln -s {TOP}-tree-first {TOP}
"""
_REPLACE = f"""
set -e
replace() {{ cp -p "$1" "$1.dpkg-new"; mv -f "$1.dpkg-new" "$1"; }}
before=$(readlink {TOP})
tree=$(mktemp -d {TOP}-tree-XXXXXXXX)
chmod 755 "$tree"
cp -a "$before/." "$tree/"
for module in /lib/*/security/pam_slurm_adopt.so; do [ -L "$module" ] || replace "$module"; done
replace /usr/libexec/slurm-adopt/helper
replace /usr/bin/slurm-adopt
ln -s "$tree" {TOP}.link
mv -fT {TOP}.link {TOP}
for old in {TOP}-tree-*; do [ "$old" = "$tree" ] || [ "$old" = "$before" ] || rm -rf "$old"; done
"""


def make_ready(node: Node) -> None:
    """Once, before the first login."""
    node.run(_MAKE_LINK)


def upgraded(stage: Stage) -> TakeBack:
    """The files now; the services when it is taken back."""
    stage.node.run(_REPLACE)

    def restart() -> None:
        stage.service.restart()
        stage.users.restart()

    return restart
