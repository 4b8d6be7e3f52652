# SPDX-License-Identifier: Apache-2.0
"""What a virtual machine's disk holds beside the distribution's packages: accounts, Slurm, units, the driver's sshd.

Everything here is text; vm_image puts it into an image and names the image after a hash of it.
"""

from __future__ import annotations

from lab.accounts import USERS, password
from lab.cgroups import CgroupTree, Hierarchy
from lab.slurm import NodeEntry, SlurmConfig

HOSTNAME = "vm"
DRIVER_PORT = 2200
"""The driver's own sshd in the guest, without PAM: what is tested cannot shut the tests out."""

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "kmod",
    "tmux",
)
SELINUX_PACKAGES = ("selinux-basics", "selinux-policy-default", "auditd", "policycoreutils", "semodule-utils")

_V2 = CgroupTree("guest", (Hierarchy("", "/sys/fs/cgroup", "/sys/fs/cgroup"),))
"""Only for its version: the guest's own systemd makes the cgroups."""

_SLURM = SlurmConfig(
    HOSTNAME,
    [NodeEntry(HOSTNAME, HOSTNAME)],
    # InactiveLimit and the like as everywhere; KillWait is what a cancelled job's processes have left to live
    {"JobAcctGatherType": "jobacct_gather/cgroup", "SlurmdDebug": "debug2"},
    # systemd makes slurmd's scope here: that is what this machine is for
    {"IgnoreSystemd": None, "ConstrainCores": "yes"},
)

_DRIVER_SSHD = f"""\
Port {DRIVER_PORT}
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd-driver.pid
MaxStartups 1000
MaxSessions 1000
PerSourcePenalties no
UseDNS no
"""

_DRIVER_UNIT = """\
[Unit]
Description=The way in for the one who drives the tests
After=network.target
[Service]
ExecStart=/usr/sbin/sshd -D -f /etc/ssh/driver.conf
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
KillMode=process
[Install]
WantedBy=multi-user.target
"""

FILES = {
    "/etc/hostname": f"{HOSTNAME}\n",
    "/etc/hosts": f"127.0.0.1 localhost\n10.0.2.15 {HOSTNAME}\n",
    "/etc/fstab": "/dev/vda / ext4 defaults,noatime 0 0\n",
    "/etc/systemd/network/10-lab.network": "[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\n"
    "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    "/etc/ssh/driver.conf": _DRIVER_SSHD,
    "/etc/systemd/system/sshd-driver.service": _DRIVER_UNIT,
    "/etc/slurm/slurm.conf": _SLURM.slurm_conf(_V2),
    "/etc/slurm/cgroup.conf": _SLURM.cgroup_conf(_V2, (24, 11)),
    # nothing of the guest is limited by how much it logs
    "/etc/systemd/journald.conf.d/lab.conf": "[Journal]\nRateLimitBurst=0\nStorage=volatile\nForwardToSyslog=no\n",
}

_USERS = "\n".join(f"useradd -m -u {uid} -s /bin/bash {user}" for user, uid in USERS.items())
_PASSWORDS = "\n".join(f"{user}:{password(user)}" for user in USERS)

SETUP = f"""\
set -e
{_USERS}
chpasswd <<'END'
{_PASSWORDS}
END
ssh-keygen -A >/dev/null
install -d -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N '' -C lab -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
printf 'Host *\\n StrictHostKeyChecking no\\n UserKnownHostsFile /dev/null\\n LogLevel ERROR\\n' >/root/.ssh/config
chmod 600 /root/.ssh/*
for user in {" ".join(USERS)}; do
    install -d -m 700 -o $user -g $user /home/$user/.ssh
    install -m 600 -o $user -g $user /root/.ssh/authorized_keys /home/$user/.ssh/authorized_keys
done
install -d -o slurm -g slurm /var/log/slurm /var/spool/slurmctld
install -d /var/spool/slurmd
systemctl enable -q systemd-networkd sshd-driver munge slurmctld slurmd
systemctl disable -q ssh.service ssh.socket 2>/dev/null || true
systemctl mask -q systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \\
    dpkg-db-backup.timer fstrim.timer systemd-firstboot.service man-db.timer 2>/dev/null || true
"""
"""Run by the shell of the guest's own tree, before the image is made."""

SELINUX_SETUP = """\
set -e
sed -i 's/^SELINUX=.*/SELINUX=permissive/' /etc/selinux/config
# a plain extended attribute to a kernel without SELinux: the labels are in the image from the start
setfiles -F -e /proc -e /sys -e /dev /etc/selinux/default/contexts/files/file_contexts / >/dev/null
"""
