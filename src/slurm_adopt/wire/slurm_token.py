# SPDX-License-Identifier: Apache-2.0
"""auth/slurm (23.11 and later): tokens, keys, and the SACK socket that makes and verifies tokens for others.

Rules of this file:
1. A token is a JWT in compact form, HS256 and nothing else: an algorithm that the other side may choose is none.
2. The signature is verified before a byte of the claims is looked at.
3. Unknown claims are passed over; those we use must be there and have the right type.
4. Time comes from the caller, as seconds since the epoch.
5. hmac, hashlib, base64 and json are loaded when they are needed: munge sites never pay for them.
"""

from __future__ import annotations

import struct

from ..record import record
from .cursor import Cursor
from .errors import LocalProtocolError, RemoteProtocolError

ANY_UID = 0xFFFFFFFF
DEFAULT_TTL_S = 60
CONTEXTS = ("auth", "sack")
# ours have 400 bytes; with `id` (a user record with its groups) a few thousand
MAX_TOKEN = 16 * 1024
# a key of 16 to 1024 bytes is usual; a key set holds a few
MAX_KEY_FILE = 64 * 1024
MIN_KEY = 16
SACK_CREATE = 64001
SACK_VERIFY = 64002


@record
class Key:
    """A signing key; `kid` is empty for slurm.key, `expires_s` 0 for one that does not."""

    secret: bytes
    kid: str = ""
    expires_s: int = 0


@record
class Claims:
    """The claims of a verified token. `ruid` is the uid that may verify it, `ANY_UID` for any."""

    uid: int
    gid: int
    ruid: int
    context: str
    expires_s: int
    payload: bytes


def _encode64(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode64(text: str) -> bytes:
    """base64url without padding, strictly."""
    import base64

    try:
        # what is more than the missing ones does no harm
        data = base64.urlsafe_b64decode(text + "==")
    except ValueError:
        raise RemoteProtocolError("not base64url") from None
    if _encode64(data) != text:
        raise RemoteProtocolError("not canonical base64url")
    return data


def _decode_payload(text: str) -> bytes:
    import base64

    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RemoteProtocolError("the payload is not base64") from None


def _sign(text: str, secret: bytes) -> bytes:
    import hashlib
    import hmac

    return hmac.new(secret, text.encode("ascii"), hashlib.sha256).digest()


def _json_object(data: bytes, what: str) -> dict[str, object]:
    import json

    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise RemoteProtocolError(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{what} is not an object")
    return value


def _json_text(text: str) -> str:
    import json

    return json.dumps(text)


def encode_token(
    key: Key, version: int, uid: int, gid: int, ruid: int, cluster: str, host: str, payload: bytes, now_s: int,
    ttl_s: int = DEFAULT_TTL_S,
) -> str:  # fmt: skip
    """A token that says we are `uid`, for the eyes of `ruid`. `host` is the short host name."""
    import base64

    if not key.secret:
        raise LocalProtocolError("no key")
    kid = f',"kid":{_json_text(key.kid)}' if key.kid else ""
    head = f'{{"alg":"HS256","typ":"JWT"{kid}}}'
    named = f'"cluster":{_json_text(cluster)},' if cluster else ""
    body = (
        f'{{"iat":{now_s},"exp":{now_s + ttl_s},"ver":{version},"ruid":{ruid},"context":"auth",{named}'
        f'"uid":{uid},"gid":{gid},"host":{_json_text(host)},"payload":"{base64.b64encode(payload).decode("ascii")}"}}'
    )
    text = f"{_encode64(head.encode())}.{_encode64(body.encode())}"
    return f"{text}.{_encode64(_sign(text, key.secret))}"


def _parts(token: str) -> tuple[str, str, str]:
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3 or not token.isascii():
        raise RemoteProtocolError("not a token")
    return parts[0], parts[1], parts[2]


def verify_token(token: str, keys: tuple[Key, ...], my_uid: int, now_s: int) -> Claims:
    """The claims of a token that one of the keys has signed, for our eyes, not expired; `RemoteProtocolError`."""
    import hmac

    head_text, body_text, signature_text = _parts(token)
    head = _json_object(_decode64(head_text), "the token's header")
    if head.get("alg") != "HS256":
        raise RemoteProtocolError(f"algorithm {str(head.get('alg'))[:20]!r}")
    signature = _decode64(signature_text)
    signed = f"{head_text}.{body_text}"
    kid = head.get("kid", "")
    fitting = [key for key in keys if key.secret and key.kid == kid and (not key.expires_s or key.expires_s >= now_s)]
    if not any(hmac.compare_digest(_sign(signed, key.secret), signature) for key in fitting):
        raise RemoteProtocolError("the token's signature is wrong, or its key unknown")
    claims = decode_claims(token)
    if claims.expires_s < now_s:
        raise RemoteProtocolError("the token has expired")
    if claims.ruid not in (ANY_UID, my_uid):
        raise RemoteProtocolError(f"the token is for uid {claims.ruid}")
    return claims


def decode_claims(token: str) -> Claims:
    """The claims of a token whose signature somebody else (SACK) has verified."""
    body = _json_object(_decode64(_parts(token)[1]), "the token's body")
    context, payload = body.get("context"), body.get("payload", "")
    if context not in CONTEXTS or not isinstance(payload, str):
        raise RemoteProtocolError("the token's context or payload is wrong")
    if not isinstance(body.get("host"), str):
        raise RemoteProtocolError("the token has no host")
    _number(body, "iat", 1 << 62)
    return Claims(
        uid=_number(body, "uid", ANY_UID),
        gid=_number(body, "gid", ANY_UID),
        ruid=_number(body, "ruid", ANY_UID),
        context=str(context),
        expires_s=_number(body, "exp", 1 << 62),
        payload=_decode_payload(payload),
    )


def _number(body: dict[str, object], name: str, cap: int) -> int:
    value = body.get(name)
    # True is an int for Python; a JSON 1.0 is none
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= cap:
        raise RemoteProtocolError(f"the token's {name} is missing or no number")
    return value


def decode_key_set(text: bytes) -> tuple[Key, ...]:
    """slurm.jwks: all HS256 keys, the default one first."""
    found = _json_object(text, "slurm.jwks").get("keys")
    if not isinstance(found, list) or not found:
        raise RemoteProtocolError("slurm.jwks has no keys")
    keys: list[Key] = []
    for entry in found:
        if not isinstance(entry, dict):
            raise RemoteProtocolError("slurm.jwks: a key is not an object")
        key = _decode_key(entry)
        if any(other.kid == key.kid for other in keys):
            raise RemoteProtocolError(f"slurm.jwks: kid {key.kid[:40]!r} comes twice")
        keys.insert(0 if entry.get("use") == "default" else len(keys), key)
    return tuple(keys)


def _decode_key(entry: dict[str, object]) -> Key:
    kid, value, expires = entry.get("kid"), entry.get("k"), entry.get("exp", 0)
    if entry.get("alg") != "HS256" or entry.get("kty") != "oct":
        raise RemoteProtocolError("slurm.jwks: a key that is not HS256")
    if not isinstance(kid, str) or not kid or not isinstance(value, str):
        raise RemoteProtocolError("slurm.jwks: a key without kid or k")
    if isinstance(expires, bool) or not isinstance(expires, int) or expires < 0:
        raise RemoteProtocolError("slurm.jwks: exp is no time")
    # both alphabets are seen
    secret = _decode64(value.rstrip("=").replace("+", "-").replace("/", "_"))
    if len(secret) < MIN_KEY:
        raise RemoteProtocolError(f"slurm.jwks: a key of {len(secret)} bytes, at least {MIN_KEY}")
    return Key(secret, kid, expires)


def _sack_request(version: int, rpc: int, body: bytes) -> bytes:
    # the length counts from itself to the end
    return struct.pack(">HII", version, 8 + len(body), rpc) + body


def encode_sack_create(version: int, ruid: int, payload: bytes) -> bytes:
    """Ask for a token that says who we are (the peer's credentials count), for the eyes of `ruid`."""
    return _sack_request(version, SACK_CREATE, struct.pack(">II", ruid, len(payload)) + payload)


def encode_sack_verify(version: int, token: str) -> bytes:
    """Ask whether a token is good for us."""
    text = token.encode("ascii")
    return _sack_request(version, SACK_VERIFY, struct.pack(">I", len(text) + 1) + text + b"\0")


def decode_sack_token(data: bytes) -> str:
    """The answer to create, whole; `Incomplete` until it is."""
    cursor = Cursor(data)
    raw = cursor.take_capped(cursor.unpack(">I"), MAX_TOKEN, "token")
    cursor.check_end()
    if not raw or raw[-1] or 0 in raw[:-1] or not raw.isascii():
        raise RemoteProtocolError("the token is not a string")
    return raw[:-1].decode("ascii")


def decode_sack_verdict(data: bytes) -> bool:
    """The answer to verify."""
    cursor = Cursor(data)
    code = cursor.unpack(">I")
    cursor.check_end()
    return code == 0
