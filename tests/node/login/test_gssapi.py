# SPDX-License-Identifier: Apache-2.0
"""GSSAPI (Kerberos) logins are in the job like all others: a real KDC in the node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

STRICT = "required pam_slurm_adopt.so profile=strict"
pytestmark = pytest.mark.extra
REALM, PORT, PASSWORD = "LAB.TEST", 2230, "secret"
KRB5_CONF = f"""\
[libdefaults]
default_realm = {REALM}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
[realms]
{REALM} = {{
  kdc = 127.0.0.1
}}
[domain_realm]
lab = {REALM}
"""
SET_UP = f"""
set -e
mkdir -p /etc/krb5kdc /var/lib/krb5kdc
kdb5_util create -s -r {REALM} -P {PASSWORD} >/dev/null
kadmin.local -q 'addprinc -pw {PASSWORD} alice' >/dev/null
kadmin.local -q 'addprinc -pw {PASSWORD} bob' >/dev/null
kadmin.local -q 'addprinc -randkey host/lab' >/dev/null
kadmin.local -q 'ktadd host/lab' >/dev/null
"""
OPTIONS = "-o GSSAPIAuthentication=yes -o PreferredAuthentications=gssapi-with-mic -o StrictHostKeyChecking=no"


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with Node(packages=("krb5-kdc", "krb5-admin-server", "krb5-user")) as node:
        use_product(node)
        node.write("/etc/krb5.conf", KRB5_CONF)
        node.run(SET_UP)
        with node.popen(["krb5kdc", "-n"]) as kdc:
            try:
                for user in ("alice", "bob"):
                    node.write(f"/run/lab/{user}.pw", f"{PASSWORD}\n")
                    ticket = ["sh", "-c", f"kinit -c /run/lab/{user}.ccache {user} </run/lab/{user}.pw"]
                    wait_for(lambda argv=ticket: node.run(argv, check=False).returncode == 0, "a ticket")
                node.sshd("gssapi", PORT, ["GSSAPIAuthentication yes", "AuthenticationMethods gssapi-with-mic"])
                yield node
            finally:
                kdc.terminate()


@pytest.mark.parametrize("session", [[STRICT], []], ids=["account-and-session", "account-alone"])
def test_gssapi__is_in_the_job_and_ends_with_it(machine: Node, session: list[str]) -> None:
    machine.pam("sshd", account=[STRICT], session=session)
    job = machine.submit("alice")
    command = "cat /proc/self/cgroup /proc/$PPID/cgroup; echo job=$SLURM_JOB_ID; setsid sleep 1004 >/dev/null 2>&1 </dev/null &"
    done = machine.run(f"KRB5CCNAME=/run/lab/alice.ccache ssh -p {PORT} {OPTIONS} alice@lab '{command}'", check=False)
    assert f"job={job}" in done.stdout.splitlines(), done.stdout + done.stderr
    assert done.stdout.count(f"/job_{job}/step_extern") >= 2
    assert "Accepted gssapi-with-mic for alice" in machine.read("/run/lab/sshd-gssapi.log")
    machine.cancel(job)
    wait_for(lambda: not machine.processes("alice"), "everything of the login to be gone")


def test_gssapi__without_a_job_it_is_refused(machine: Node) -> None:
    machine.pam("sshd", account=[STRICT], session=[STRICT])
    done = machine.run(f"KRB5CCNAME=/run/lab/bob.ccache ssh -p {PORT} {OPTIONS} bob@lab id", check=False)
    assert done.returncode != 0
    assert "you have no active jobs on this node" in done.stderr, done.stderr
