# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.slurm_token import (
    ANY_UID,
    MAX_TOKEN,
    Claims,
    Key,
    _decode64,
    _encode64,
    decode_claims,
    decode_key_set,
    decode_sack_token,
    decode_sack_verdict,
    encode_sack_create,
    encode_sack_verify,
    encode_token,
    verify_token,
)

NOW = 1_700_000_000
KEY = Key(b"0123456789abcdef\n")
BODY: dict[str, object] = {
    "iat": NOW, "exp": NOW + 60, "ver": 10496, "ruid": 0, "context": "auth", "cluster": "lab",
    "uid": 0, "gid": 0, "host": "n1", "payload": base64.b64encode(b"\2" + bytes(32)).decode(),
}  # fmt: skip
GOOD = Claims(uid=0, gid=0, ruid=0, context="auth", expires_s=NOW + 60, payload=b"\2" + bytes(32))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(body: object, head: object = None, secret: bytes = KEY.secret) -> str:
    """A token made the way any JWT library makes it."""
    head = {"alg": "HS256", "typ": "JWT"} if head is None else head
    text = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(body).encode())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def test_slurm_token__jwt_of_rfc_7515() -> None:
    """Appendix A.1: another implementation's key and signature."""
    secret = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    jwt = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
        "bS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    with pytest.raises(RemoteProtocolError, match="context"):
        verify_token(jwt, (Key(secret),), 0, 0)
    with pytest.raises(RemoteProtocolError, match="signature"):
        verify_token(jwt, (Key(secret + b"x"),), 0, 0)


def test_slurm_token__what_we_make() -> None:
    made = encode_token(KEY, 10496, 0, 0, 0, "lab", "n1", b"\2" + bytes(32), NOW)
    head, body, signature = made.split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(body + "==")) == BODY
    expected = hmac.new(KEY.secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert signature == b64(expected)
    assert verify_token(made, (KEY,), 0, NOW) == GOOD


def test_slurm_token__without_a_cluster() -> None:
    made = encode_token(KEY, 10496, 0, 0, 0, "", "n1", b"", NOW)
    assert "cluster" not in json.loads(base64.urlsafe_b64decode(made.split(".")[1] + "=="))


def test_slurm_token__base64url() -> None:
    """Whatever letters a signature or a key ends with."""
    for text in ("aaaX", "-_-_", "AAAA", "aQ", "-w", "XXXX"):
        assert _encode64(_decode64(text)) == text
        assert base64.urlsafe_b64decode(text + "==") == _decode64(text)
    for bad in ("a", "aa=", "aaa+", "aa\n", "ab", "é"):
        with pytest.raises(RemoteProtocolError):
            _decode64(bad)
    key = base64.urlsafe_b64decode("aaaX" * 6)
    assert decode_key_set(json.dumps({"keys": [jwks(k="aaaX" * 6)]}).encode()) == (Key(key, "a"),)
    assert decode_key_set(json.dumps({"keys": [jwks(k=b64(bytes(16)))]}).encode()) == (Key(bytes(16), "a"),)
    with pytest.raises(RemoteProtocolError, match="15 bytes, at least 16"):
        decode_key_set(json.dumps({"keys": [jwks(k=b64(bytes(15)))]}).encode())


@pytest.mark.parametrize("name", ["iat", "exp"])
def test_slurm_token__the_latest_times(name: str) -> None:
    assert decode_claims(token({**BODY, name: 1 << 62}))
    with pytest.raises(RemoteProtocolError, match=name):
        decode_claims(token({**BODY, name: (1 << 62) + 1}))


def test_slurm_token__without_a_payload() -> None:
    body = {key: value for key, value in BODY.items() if key != "payload"}
    assert decode_claims(token(body)).payload == b""


def test_slurm_token__says_what_is_wrong() -> None:
    no_json = b64(b"x")
    with pytest.raises(RemoteProtocolError, match=r"^the token's header is not JSON"):
        verify_token(f"{no_json}.{no_json}.{no_json}", (KEY,), 0, NOW)
    with pytest.raises(RemoteProtocolError, match=r"^the token's body is not JSON"):
        decode_claims(f"{no_json}.{no_json}.{no_json}")
    with pytest.raises(RemoteProtocolError, match=r"^slurm\.jwks is not JSON"):
        decode_key_set(b"x")
    with pytest.raises(RemoteProtocolError, match=r"^token"):
        decode_sack_token(b"\x7f\xff\xff\xff")
    with pytest.raises(RemoteProtocolError, match="not a string"):
        decode_sack_token(b"\0\0\0\4to\0\0")


def test_slurm_token__the_longest() -> None:
    with pytest.raises(RemoteProtocolError, match="not a token"):
        verify_token("x" * (MAX_TOKEN - 3) + "..xx", (KEY,), 0, NOW)
    with pytest.raises(RemoteProtocolError, match="base64url"):
        verify_token("x" * (MAX_TOKEN - 3) + "..x", (KEY,), 0, NOW)


def test_slurm_token__with_a_key_of_a_set() -> None:
    key = Key(b"x" * 16, 'odd "kid"', NOW + 5)
    made = encode_token(key, 10752, 0, 0, ANY_UID, "", "n1", b"", NOW, 10)
    assert verify_token(made, (KEY, key), 7, NOW + 5).ruid == ANY_UID
    for keys, now in (((KEY,), NOW), ((Key(key.secret),), NOW), ((key,), NOW + 6), ((), NOW)):
        with pytest.raises(RemoteProtocolError, match="signature"):
            verify_token(made, keys, 0, now)
    with pytest.raises(LocalProtocolError):
        encode_token(Key(b""), 1, 0, 0, 0, "", "", b"", NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW - 1},
        {"exp": None},
        {"exp": "x"},
        {"exp": True},
        {"exp": 1.5e9},
        {"iat": None},
        {"uid": None},
        {"uid": -1},
        {"uid": 1 << 32},
        {"gid": None},
        {"ruid": 7},
        {"ruid": None},
        {"context": "other"},
        {"context": None},
        {"context": []},
        {"host": None},
        {"payload": 1},
        {"payload": "###"},
        {"payload": "AA=A"},
        {"payload": "é"},
    ],
)
def test_slurm_token__claims_refused(change: dict[str, object]) -> None:
    body = {name: value for name, value in {**BODY, **change}.items() if value is not None}
    with pytest.raises(RemoteProtocolError):
        verify_token(token(body), (KEY,), 0, NOW)


@pytest.mark.parametrize("body", [[], "x", 1, None])
def test_slurm_token__body_that_is_no_object(body: object) -> None:
    with pytest.raises(RemoteProtocolError):
        verify_token(token(body), (KEY,), 0, NOW)


@pytest.mark.parametrize(
    "head", [{"alg": "none"}, {"alg": "HS512"}, {}, [], {"alg": "HS256", "kid": "x"}, {"alg": None}]
)
def test_slurm_token__headers_refused(head: object) -> None:
    with pytest.raises(RemoteProtocolError):
        verify_token(token(BODY, head), (KEY,), 0, NOW)


def test_slurm_token__everything_is_signed() -> None:
    good = token(BODY)
    assert verify_token(good, (KEY,), 0, NOW + 60) == GOOD
    head, body, signature = good.split(".")
    for bad in (
        "", ".", "..", head, f"{head}.{body}", f"{head}.{body}.", f"{good}.", f"{good}=", f" {good}", f"{good}\n",
        f"{head}.{body}.{signature[:-2]}", f"{head}.{b64(json.dumps({**BODY, 'uid': 1}).encode())}.{signature}",
        token(BODY, secret=b"another key of size"), "é" + good, "x" * 20000,
    ):  # fmt: skip
        with pytest.raises(RemoteProtocolError):
            verify_token(bad, (KEY,), 0, NOW)
    # the last digit of 43 carries four bits of six: another spelling of the same bytes is not the same token
    spelt = signature[:-1] + chr(ord(signature[-1]) + 1)
    with pytest.raises(RemoteProtocolError):
        verify_token(f"{head}.{body}.{spelt}", (KEY,), 0, NOW)


def test_slurm_token__claims_that_sack_has_verified() -> None:
    assert decode_claims(token({**BODY, "context": "sack"}, secret=b"unknown")).context == "sack"


def jwks(**change: object) -> dict[str, object]:
    entry = {"alg": "HS256", "kty": "oct", "kid": "a", "k": b64(b"\xfb\xff" * 10), **change}
    return {name: value for name, value in entry.items() if value is not None}


def test_slurm_token__key_set() -> None:
    keys = [jwks(), jwks(kid="b", exp=NOW, use="default"), jwks(kid="c", k=base64.b64encode(b"\xfb\xff" * 11).decode())]
    assert decode_key_set(json.dumps({"keys": keys}).encode()) == (
        Key(b"\xfb\xff" * 10, "b", NOW),
        Key(b"\xfb\xff" * 10, "a"),
        Key(b"\xfb\xff" * 11, "c"),
    )


@pytest.mark.parametrize(
    "keys",
    [
        None,
        [],
        {},
        ["x"],
        [jwks(), jwks()],
        [jwks(alg="RS256")],
        [jwks(alg=None)],
        [jwks(kty="RSA")],
        [jwks(kid=None)],
        [jwks(kid=1)],
        [jwks(kid="")],
        [jwks(k=None)],
        [jwks(k="###")],
        [jwks(k=b64(b"short"))],
        [jwks(exp="x")],
        [jwks(exp=-1)],
    ],
)
def test_slurm_token__key_set_refused(keys: object) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_key_set(json.dumps({"keys": keys}).encode())


@given(st.one_of(st.binary(max_size=80), st.just(b"[" * 20000)))
def test_slurm_token__raises_nothing_else(data: bytes) -> None:
    for decode in (decode_key_set, decode_sack_token, decode_sack_verdict):
        with suppress(RemoteProtocolError):
            decode(data)
    for text in (data.decode("latin-1"), f"{b64(data)}.{b64(data)}.{b64(data)}"):
        with suppress(RemoteProtocolError):
            verify_token(text, (KEY,), 0, NOW)
    with suppress(RemoteProtocolError):
        decode_claims(f"x.{b64(data)}.y")


def test_slurm_token__sack() -> None:
    assert encode_sack_create(0x2900, 5, b"ab").hex() == "29000000 0012 0000fa01 00000005 00000002 6162".replace(
        " ", ""
    )
    assert encode_sack_create(0x2900, ANY_UID, b"")[10:14] == b"\xff" * 4
    assert encode_sack_verify(0x2900, "tok").hex() == "29000000 0010 0000fa02 00000004 746f6b00".replace(" ", "")
    data = bytes.fromhex("00000004 746f6b00")
    assert decode_sack_token(data) == "tok"
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            decode_sack_token(data[:end])
    for bad in (
        "00000000",
        "00000003 746f6b",
        "00000004 74006b00",
        "00000004 74ff6b00",
        "00000004 746f6b00 00",
        "7fffffff",
    ):
        with pytest.raises(RemoteProtocolError):
            decode_sack_token(bytes.fromhex(bad))
    assert decode_sack_verdict(bytes(4))
    assert not decode_sack_verdict(b"\0\0\0\1")
    for bad in ("", "000000", "0000000000"):
        with pytest.raises(RemoteProtocolError):
            decode_sack_verdict(bytes.fromhex(bad))
