# SPDX-License-Identifier: Apache-2.0
"""Shapes of slurm.conf as clusters have them (tests/corpus/slurm_conf), and what must be found from each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from slurm_adopt.system.slurm.conf import ConfFault, read_slurm_conf
from slurm_adopt.system.slurm.spool_dir import pid_files, spool_dirs

CORPUS = Path(__file__).parents[2] / "corpus" / "slurm_conf"
DEFAULT = "/var/spool/slurmd"
#: File, this machine's host name, where sockets are and what their names begin with, further fields of `SlurmConf`.
FOUND: dict[str, tuple[str, list[tuple[str, str | None]], dict[str, Any]]] = {
    "plain": ("n1", [(DEFAULT, "n1")], {"auth_type": "auth/munge", "slurmd_port": 6818, "slurm_user": "root", "proctrack_type": "proctrack/cgroup"}),
    "spool-of-slurm-user": ("q1-dy-c5-7.ec2.internal", [(DEFAULT, "q1-dy-c5-7")], {"slurm_user": "slurm", "slurmd_user": "root", "step_owners": (0,)}),
    "spool-and-state-in-one": ("p07", [("/var/spool/slurm", "p07")], {"slurm_user": "slurm"}),
    "include-first": ("gpu-node1", [(DEFAULT, "gpu-node1")], {"cluster_name": "later"}),
    "include-of-the-cluster": ("rack2n3", [("/local/spool", "rack2n3")], {"cluster_name": "rack"}),
    "names-in-capitals": ("n2", [("/VAR/SPOOL/SLURMD", "N2")], {"slurmd_port": 7003, "prolog_flags": ("contain", "x11")}),
    "quoted-values": ("n1", [("/var/spool/with blank", "n1")], {"task_plugin": ("task/affinity", "task/cgroup"), "launch_parameters": ("ulimit_pam_adopt", "enable_nss_slurm")}),
    "continued-lines": ("host1", [(DEFAULT, "n1")], {"task_plugin": ("task/cgroup", "task/affinity")}),
    "comments-everywhere": ("n1", [("/var/spool/a#b", "n1")], {"cluster_name": "new", "slurmd_port": 6818}),
    "spaces-round-equals": ("n1", [("/var/spool/airy", "n1")], {"cluster_name": "airy", "slurmd_port": 6900}),
    "empty-values": ("n1", [(DEFAULT, "n1")], {"cluster_name": "half"}),
    "merge-conflict": ("n1", [(DEFAULT, "n1")], {"cluster_name": "merged"}),
    "windows-line-ends": ("n1", [("/var/spool/dos", "n1")], {"cluster_name": "dos"}),
    "latin-1": ("n1", [(DEFAULT, "n1")], {"cluster_name": "cafe"}),
    "tabs": ("n1", [("/var/spool/tabbed", "n1")], {"cluster_name": "tabbed"}),
    "pattern-n": ("big", [(f"/var/spool/slurmd.v{n}", f"v{n}") for n in (1, 2, 3, 4)], {"slurmd_port": 17001}),
    "pattern-h": ("rack7-2", [("/scratch/rack7-2/slurmd", "c2")], {}),
    "hostname-is-another": ("ip-10-0-0-2.ec2.internal", [(DEFAULT, "cn-002")], {}),
    "full-host-names": ("c2.cluster.example.org", [(DEFAULT, "c2")], {}),
    "dynamic": ("vm-17.example", [("/var/spool/slurm/vm-17", None), ("/var/spool/slurm/vm-17.example", None)], {}),
    "auth-slurm": ("worker-2", [(DEFAULT, "worker-2")], {"auth_type": "auth/slurm", "auth_info": "use_client_ids,cred_expire=120", "cluster_name": "_slurm"}),
    "auth-short": ("n1", [(DEFAULT, "n1")], {"auth_type": "auth/slurm", "hash_plugin": "sha3"}),
    "ipv6": ("n3", [(DEFAULT, "n3")], {"communication_parameters": ("enableipv6", "disableipv4")}),
    "tls": ("n1", [(DEFAULT, "n1")], {"tls_type": "tls/s2n", "tls_parameters": "ca_cert_file=/etc/slurm/ca.pem"}),
    "numbers-for-users": ("n1", [(DEFAULT, "n1")], {"slurm_user": "981", "step_owners": (0,)}),
    "slurmd-of-a-user": ("laptop", [("/tmp/slurmd", "localhost")], {"step_owners": (0, 1), "spool_owners": (0, 1)}),
    "nothing-tracked": ("c1", [(DEFAULT, "c1")], {"proctrack_type": "proctrack/linuxproc", "prolog_flags": ("contain",)}),
    "no-extern-step": ("laptop", [(DEFAULT, "localhost")], {"prolog_flags": (), "proctrack_type": "proctrack/pgid"}),
    "containers": ("n1", [(DEFAULT, "n1")], {"container_type": "job_container/tmpfs", "prolog": "/etc/slurm/prolog.d/*"}),
    "namespaces": ("n1", [(DEFAULT, "n1")], {"container_type": "namespace/linux", "prolog_flags": ("contain", "runinjob")}),
    "last-one-wins": ("n1", [("/second", "n1")], {"slurmd_port": 2222}),
    "operators": ("n1", [(DEFAULT, "n1")], {"prolog_flags": ("contain",), "launch_parameters": ("ulimit_pam_adopt",)}),
    "port-range": ("n1", [(DEFAULT, "n1")], {"slurmd_port": 6818, "message_timeout_s": 60, "tcp_timeout_s": 8}),
    "many-nodes": ("r19c7s16b3", [(DEFAULT, "r19c7s16b3")], {}),
    "defaults-lines": ("b1", [(DEFAULT, "b1")], {"cluster_name": "default"}),
    "short-plugin-names": ("n1", [(DEFAULT, "n1")], {"task_plugin": ("task/affinity", "task/cgroup"), "container_type": "job_container/tmpfs", "tls_type": "tls/none"}),
    "keys-that-are-gone": ("n1", [(DEFAULT, "n1")], {"cluster_name": "old", "auth_type": "auth/munge", "problems": ()}),
    "spool-below-slurm-users": ("compute02", [("/var/spool/slurm/d", "compute02")], {"slurm_user": "slurm"}),
    "slashes": ("n1", [("/var//spool/slurmd/", "n1")], {}),
    "three-brackets": ("r1-2-1.lab", [(DEFAULT, "rack1n2b1")], {"problems": ()}),
    "names-that-no-host-has": ("ci-runner", [(DEFAULT, None)], {}),
    "all-on-localhost": ("devbox", [(DEFAULT, "slurmnode1"), (DEFAULT, "slurmnode2")], {}),
    "small-letters": ("host3.example.org", [("/var/spool/slurm-small", "cn3")], {"cluster_name": "small"}),
    "slips-in-other-lines": ("n1", [(DEFAULT, "n1")], {"cluster_name": "slips"}),
    "includes-in-three-steps": ("n1", [("/var/spool/steps", "n1")], {"slurm_user": "slurm", "slurmd_port": 7000}),
    "slurmd-of-slurm-user": ("n1", [(DEFAULT, "n1")], {"step_owners": (0, 1), "proctrack_type": "proctrack/cgroup"}),
    "cloud-names": ("h4d-set-42.c.project.internal", [("/var/spool/steps", "h4d-set-42")], {"prolog_flags": ("alloc", "contain", "deferbatch", "serial"), "message_timeout_s": 60}),
}  # fmt: skip
REFUSED = {
    "relative-spool": "slurm-conf-malformed",
    "include-that-is-gone": "slurm-conf-missing",
    "include-of-itself": "slurm-conf-malformed",
    "include-without-a-name": "slurm-conf-malformed",
    "key-that-decides-is-broken": "slurm-conf-malformed",
    "binary": "slurm-conf-malformed",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files must be root's")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for path in CORPUS.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


@pytest.mark.parametrize("name", FOUND)
def test_slurm_conf_corpus__what_is_found(corpus: Path, name: str) -> None:
    hostname, places, fields = FOUND[name]
    conf = read_slurm_conf((f"{corpus}/{name}.conf",))
    assert spool_dirs(conf, "", hostname) == places
    assert {field: getattr(conf, field) for field in fields} == fields


@pytest.mark.parametrize("name", REFUSED)
def test_slurm_conf_corpus__what_is_refused(corpus: Path, name: str) -> None:
    with pytest.raises(ConfFault) as caught:
        read_slurm_conf((f"{corpus}/{name}.conf",))
    assert caught.value.reason == REFUSED[name]


def test_slurm_conf_corpus__pid_files_of_many_slurmds(corpus: Path) -> None:
    conf = read_slurm_conf((f"{corpus}/pattern-n.conf",))
    assert pid_files(conf, "v2") == ["/run/slurmd.v2.pid"]


def test_slurm_conf_corpus__every_file_is_in_the_table() -> None:
    assert {path.stem for path in CORPUS.glob("*.conf")} == FOUND.keys() | REFUSED.keys()
    assert len(FOUND) >= 45
