# SPDX-License-Identifier: Apache-2.0
"""A token is good only if our key has signed it, for us, and not too long ago; whatever its claims are.

Of a token that is good, one changed character makes a bad one. A token that we make is good and says what was put in.
A key set has no two keys of one name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from slurm_adopt.wire import slurm_token as wire
from slurm_adopt.wire.errors import RemoteProtocolError

from ..reader import Reader

KEY = wire.Key(b"k" * 32)
NOW_S = 1_800_000_000
MY_UID = 0
HEAD = b'{"alg":"HS256"}'


def check(data: bytes) -> None:
    """A key set, a token as it is, or a header and a body that the harness signs."""
    reader = Reader(data)
    kind = reader.number(4)
    if kind == 0:
        _check_key_set(reader.rest())
    elif kind == 1:
        assert _verify(reader.rest().decode("latin-1")) is None, "somebody else's token"
    elif kind == 2:
        _check_signed(reader.take(reader.number(200)), reader.rest())
    else:
        _check_own(reader)


def _verify(token: str) -> wire.Claims | None:
    try:
        return wire.verify_token(token, (KEY,), MY_UID, NOW_S)
    except RemoteProtocolError:
        return None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _check_signed(head: bytes, body: bytes) -> None:
    text = f"{_encoded(head or HEAD)}.{_encoded(body)}"
    signature = hmac.new(KEY.secret, text.encode(), hashlib.sha256).digest()
    token = f"{text}.{_encoded(signature)}"
    claims = _verify(token)
    if claims is None:
        return
    assert claims.ruid in (wire.ANY_UID, MY_UID)
    assert claims.expires_s >= NOW_S
    assert claims.context in wire.CONTEXTS
    assert json.loads(head or HEAD)["alg"] == "HS256"
    assert 0 <= claims.uid <= wire.ANY_UID
    _check_changed(token, len(body))


def _check_changed(token: str, seed: int) -> None:
    place = seed % len(token)
    other = "A" if token[place] != "A" else "B"
    assert _verify(token[:place] + other + token[place + 1 :]) is None, f"changed at {place} and still good"


def _check_own(reader: Reader) -> None:
    uid, gid = reader.number(wire.ANY_UID + 1), reader.number(wire.ANY_UID + 1)
    ruid, ttl_s = reader.number(3), reader.number(4000) - 1000
    cluster, payload = reader.take(20).decode("latin-1"), reader.rest()
    token = wire.encode_token(KEY, 45 << 8, uid, gid, ruid, cluster, "host", payload, NOW_S, ttl_s)
    claims = _verify(token)
    if ttl_s < 0 or ruid != MY_UID or len(token) > wire.MAX_TOKEN:
        assert claims is None
        return
    assert claims == wire.Claims(uid, gid, ruid, "auth", NOW_S + ttl_s, payload)
    _check_changed(token, uid)


def _check_key_set(text: bytes) -> None:
    try:
        keys = wire.decode_key_set(text)
    except RemoteProtocolError:
        return
    assert keys
    assert len({key.kid for key in keys}) == len(keys)
    assert all(len(key.secret) >= wire.MIN_KEY for key in keys)
