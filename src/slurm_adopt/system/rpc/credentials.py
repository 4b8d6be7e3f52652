# SPDX-License-Identifier: Apache-2.0
"""Makes and verifies credentials between this node and a slurmd: munge, or auth/slurm by key or by SACK.

Rules of this file:
1. A credential of ours is for SlurmdUser's eyes only: a server that is not slurmd cannot decode it. It could pass it
   on to one, though: so root's is bound to its message, and where it cannot be, it is the user's (`speaker`).
2. Only what root or SlurmdUser has made is believed.
3. Nobody but root and SlurmUser may write the key, and others may not read it: a key that others know proves nothing.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from ...model import Fault
from ...record import record
from ...wire import slurm_token
from ...wire.callerid import AUTH_MUNGE, AUTH_SLURM
from ...wire.errors import Incomplete, ProtocolError
from ...wire.rpc_hash import FIRST_HASHED
from ..slurm.accounts import uid_of_slurm_user
from ..tasks.files import read_trusted
from ..tasks.sockets import connect_unix, peer_of, receive, send_all
from .munge import DEFAULT_SOCKET, MungeFault, decode_credential, encode_credential

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model import ReasonCode
    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task
    from .munge import MungeWorkers

# the places of SACK's socket (documentation of auth/slurm); CLUSTER only from 25.05 on
SACK_PLACES = ("/run/slurm-{cluster}/sack.socket", "/run/slurm/sack.socket")


#: The reason codes of a fault on this node, and of what the other side has sent.
OURS: ReasonCode = "caller-no-credential"
THEIRS: ReasonCode = "caller-untrusted"


class AuthFault(Fault):
    """No credential could be made (`OURS`) or verified (`THEIRS`)."""


@record
class Sender:
    """The uid that made a credential, the only uid that may read it (0xffffffff: any), and its payload."""

    uid: int
    restricted_to: int
    payload: bytes


def auth_settings(auth_info: str) -> dict[str, str]:
    """AuthInfo as a table; a value without any `=` is munge's socket (the old form)."""
    if auth_info and "=" not in auth_info:
        return {"socket": auth_info}
    settings: dict[str, str] = {}
    for item in auth_info.split(","):
        name, _, value = item.partition("=")
        settings[name.strip().lower()] = value
    return settings


def _ttl_s(settings: dict[str, str]) -> int:
    text = settings.get("ttl", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def speaker(conf: SlurmConf, version: int, uid: int) -> int:
    """Return the uid that asks: root, or `uid`, who logs in, if the version cannot bind a credential to a message.

    20.11.0-8 and 21.08.0-7 take root's credential from one message for any other. All releases answer
    users about their own jobs, which is enough here. auth/slurm has no such versions. `AuthFault` for root.
    """
    if conf.auth_type != "auth/munge" or version >= FIRST_HASHED:
        return os.geteuid()
    if uid == 0:
        raise AuthFault(OURS, f"root's credential is not bound to its message in version {version >> 8}")
    return uid


def make_credential(
    conf: SlurmConf, workers: MungeWorkers, version: int, payload: bytes, as_uid: int, deadline_ns: int
) -> Task[tuple[int, str]]:
    """(plugin id, credential of `as_uid`) for a message to this cluster's slurmd; `AuthFault`, `DeadlineExceeded`."""
    settings = auth_settings(conf.auth_info)
    for_uid = conf.step_owners[-1]
    if conf.auth_type == "auth/munge":
        socket = settings.get("socket", DEFAULT_SOCKET)
        try:
            ttl_s = _ttl_s(settings)
            text = yield from encode_credential(workers, payload, for_uid, ttl_s, socket, as_uid, deadline_ns)
        except MungeFault as fault:
            raise AuthFault(OURS, f"{fault.why}: {fault.detail}") from None
        return AUTH_MUNGE, text
    if conf.auth_type == "auth/slurm":
        return AUTH_SLURM, (yield from _make_token(conf, version, for_uid, payload, _ttl_s(settings), deadline_ns))
    raise AuthFault(OURS, f"AuthType {conf.auth_type} is not known")


def check_credential(
    conf: SlurmConf,
    workers: MungeWorkers,
    version: int,
    plugin: int | None,
    text: str | None,
    as_uid: int,
    deadline_ns: int,
) -> Task[Sender]:
    """Return the uid that made the credential of a reply to `as_uid`.

    `AuthFault` unless it is good and its maker may speak for slurmd; `DeadlineExceeded`.
    """
    if conf.auth_type == "auth/munge" and plugin == AUTH_MUNGE and text:
        socket = auth_settings(conf.auth_info).get("socket", DEFAULT_SOCKET)
        try:
            credential = yield from decode_credential(workers, text, socket, as_uid, deadline_ns)
        except MungeFault as fault:
            raise AuthFault(fault.reason, f"{fault.why}: {fault.detail}") from None
        sender = Sender(credential.uid, credential.restricted_to, credential.payload)
    elif conf.auth_type == "auth/slurm" and plugin == AUTH_SLURM and text:
        claims = yield from _check_token(conf, version, text, deadline_ns)
        sender = Sender(claims.uid, claims.ruid, claims.payload)
    else:
        raise AuthFault(THEIRS, f"a credential of plugin {plugin} where {conf.auth_type} is in use")
    if sender.uid not in conf.step_owners:
        raise AuthFault(THEIRS, f"the reply was made by uid {sender.uid}")
    return sender


def _host() -> str:
    return os.uname().nodename.partition(".")[0]


def _make_token(conf: SlurmConf, version: int, for_uid: int, payload: bytes, ttl_s: int, deadline_ns: int) -> Task[str]:
    keys = read_keys(conf)
    try:
        if keys:
            now_s = int(time.time())
            ttl_s = ttl_s or slurm_token.DEFAULT_TTL_S
            me, group = os.geteuid(), os.getegid()
            return slurm_token.encode_token(
                keys[0], version, me, group, for_uid, conf.cluster_name, _host(), payload, now_s, ttl_s
            )
        request = slurm_token.encode_sack_create(version, for_uid, payload)
        answer = yield from _ask_sack(conf, request, deadline_ns)
        return slurm_token.decode_sack_token(answer)
    except ProtocolError as error:
        raise AuthFault(OURS, str(error)) from None


def _check_token(conf: SlurmConf, version: int, text: str, deadline_ns: int) -> Task[slurm_token.Claims]:
    keys = read_keys(conf)
    try:
        if keys:
            return slurm_token.verify_token(text, keys, os.geteuid(), int(time.time()))
        request = slurm_token.encode_sack_verify(version, text)
        if not slurm_token.decode_sack_verdict((yield from _ask_sack(conf, request, deadline_ns))):
            raise AuthFault(THEIRS, "SACK does not accept the token")
        return slurm_token.decode_claims(text)
    except ProtocolError as error:
        raise AuthFault(THEIRS, str(error)) from None


def read_keys(conf: SlurmConf) -> tuple[slurm_token.Key, ...]:
    """The keys next to slurm.conf, the one to sign with first; none if there is no key file. `AuthFault`."""
    folder = os.path.dirname(conf.path)
    owners = (0, uid_of_slurm_user(conf))
    try:
        text = _read_secret(f"{folder}/slurm.jwks", owners)
        if text is not None:
            return slurm_token.decode_key_set(text)
    except ProtocolError as error:
        raise AuthFault(OURS, str(error)) from None
    secret = _read_secret(f"{folder}/slurm.key", owners)
    if secret is not None and len(secret) < slurm_token.MIN_KEY:
        raise AuthFault(OURS, f"{folder}/slurm.key is shorter than {slurm_token.MIN_KEY} bytes")
    return () if secret is None else (slurm_token.Key(secret),)


def _read_secret(path: str, owners: tuple[int | None, ...]) -> bytes | None:
    try:
        return read_trusted(path, owners, slurm_token.MAX_KEY_FILE, follow=True, secret=True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise AuthFault(OURS, f"{path}: {error.strerror}") from None


def _ask_sack(conf: SlurmConf, request: bytes, deadline_ns: int) -> Task[bytes]:
    """One question to slurmd's (or sackd's) socket; the answer is what comes until the end."""
    owners = (*conf.step_owners, uid_of_slurm_user(conf))
    for place in SACK_PLACES:
        path = place.format(cluster=conf.cluster_name)
        try:
            sock = yield from connect_unix(path, _socket.SOCK_STREAM, deadline_ns)
        except OSError:
            continue
        try:
            if peer_of(sock).uid not in owners:
                raise AuthFault(OURS, f"{path} is served by uid {peer_of(sock).uid}")
            yield from send_all(sock, request, deadline_ns)
            return (yield from _whole(sock, deadline_ns))
        except OSError as error:
            raise AuthFault(OURS, f"{path}: {error.strerror or error}") from None
        finally:
            sock.close()
    raise AuthFault(OURS, "no slurm.key, no slurm.jwks, and no SACK socket")


def _whole(sock: _socket.socket, deadline_ns: int) -> Task[bytes]:
    answer = b""
    while len(answer) <= slurm_token.MAX_TOKEN + 4:
        try:
            answer += yield from receive(sock, 4096, deadline_ns)
        except ConnectionResetError:
            break
        try:
            slurm_token.decode_sack_token(answer)
            break
        except Incomplete:
            continue
        except ProtocolError:
            break  # the answer to verify is a number, 0 looks like an empty string
    return answer
