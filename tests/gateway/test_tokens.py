"""Tokens at the verifier: one issuer, two algorithms, and the tricks that must not work."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.common.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from services.gateway.signing_keys import SigningKeys, parse_key_set, reader
from services.gateway.tokens import TokenRules, TokenVerifier

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
RULES = TokenRules("https://issuer.example", "bonafide", leeway_seconds=0)


def public(key: Any, key_id: str, **fields: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    entry: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)  # type: ignore[call-overload]
    return {**entry, "kid": key_id, **fields}


KEY_SET = {"keys": [public(RSA, "r"), public(EC, "e")]}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {"iss": RULES.issuer, "aud": RULES.audience, "sub": "acme", "exp": now + 60, "iat": now}
    return {name: value for name, value in (usual | changes).items() if value is not None}


def token(key: Any = EC, algorithm: str = "ES256", key_id: str = "e", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": key_id})


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], secret: bytes | None) -> str:
    """A token that no library would make."""
    text = f"{encoded(header)}.{encoded(claims())}"
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{text}.{encoded(signature)}"


def verifier(key_set: Any = None, rules: TokenRules = RULES) -> TokenVerifier:
    content = json.dumps(key_set or KEY_SET).encode()
    return TokenVerifier(rules, SigningKeys(lambda: content, refresh_seconds=60, stale_seconds=60))


async def reason(given: str, tokens: TokenVerifier | None = None) -> str:
    with pytest.raises((UnauthenticatedError, PermissionDeniedError, UnavailableError)) as refused:
        await (tokens or verifier()).subject(given)
    return refused.value.reason


async def test_both_algorithms_are_taken() -> None:
    tokens = verifier()
    assert await tokens.subject(token()) == "acme"
    assert await tokens.subject(token(RSA, "RS256", "r", aud=["other", "bonafide"])) == "acme"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": int(time.time()) - 5}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INVALID"),
        ({"aud": "other"}, "TOKEN_INVALID"),
        ({"aud": None}, "TOKEN_INVALID"),
        ({"iss": "https://other.example"}, "TOKEN_INVALID"),
        ({"iss": None}, "TOKEN_INVALID"),
        ({"sub": None}, "TOKEN_INVALID"),
        ({"sub": ""}, "TOKEN_INVALID"),
        ({"sub": "a\nb"}, "TOKEN_INVALID"),
        ({"sub": "a" * 129}, "TOKEN_INVALID"),
        ({"nbf": int(time.time()) + 86_400}, "TOKEN_INVALID"),
    ],
)
async def test_claims_must_be_ours_and_in_time(changes: dict[str, Any], expected: str) -> None:
    assert await reason(token(**changes)) == expected


async def test_keys_are_good_for_one_algorithm_and_headers_choose_nothing() -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    other = ec.generate_private_key(ec.SECP256R1())
    assert await reason(by_hand({"alg": "none", "kid": "r"}, None)) == "TOKEN_INVALID"
    assert await reason(by_hand({"alg": "HS256", "kid": "r"}, pem)) == "TOKEN_INVALID"
    assert await reason(by_hand({"alg": "HS256", "kid": "r"}, der)) == "TOKEN_INVALID"
    assert await reason(by_hand({"alg": "HS256", "kid": "o"}, b"secret" * 8)) == "TOKEN_INVALID"
    assert await reason(token(RSA, "RS256", "e")) == "TOKEN_INVALID"
    assert await reason(token(RSA, "RS512", "r")) == "TOKEN_INVALID"
    assert await reason(token(other)) == "TOKEN_INVALID"
    assert await reason(token(key_id="unknown")) == "TOKEN_INVALID"
    own = {"kid": "e", "jwk": public(other, "e"), "jku": "http://127.0.0.1/keys", "x5u": "http://127.0.0.1/"}
    assert await reason(jwt.encode(claims(), other, "ES256", headers=own)) == "TOKEN_INVALID"
    assert await reason(jwt.encode(claims(), EC, "ES256")) == "TOKEN_INVALID"  # names no key
    assert await reason("") == "TOKEN_INVALID"
    assert await reason("a.b.c") == "TOKEN_INVALID"
    tampered = token().split(".")
    tampered[1] = encoded(claims(sub="somebody else"))
    assert await reason(".".join(tampered)) == "TOKEN_INVALID"


def test_a_key_set_yields_only_keys_that_are_safe_to_use() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    private = jwt.algorithms.ECAlgorithm.to_jwk(EC, as_dict=True)
    unusable = [
        {"kty": "oct", "k": encoded(b"secret" * 8), "kid": "o", "alg": "HS256"},
        public(weak, "weak"),
        public(RSA, "pss", alg="PS256"),
        public(RSA, "encryption", use="enc"),
        public(RSA, "wrap", key_ops=["wrapKey"]),
        public(ec.generate_private_key(ec.SECP384R1()), "p384"),
        {**private, "kid": "private"},
        {key: value for key, value in public(EC, "").items() if key != "kid"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "broken"},
        "text",
    ]
    found = parse_key_set(json.dumps({"keys": [*unusable, *KEY_SET["keys"]]}).encode())
    assert {name: key.algorithm for name, key in found.items()} == {"r": "RS256", "e": "ES256"}
    for content in (b"", b"[]", b"{}", b'{"keys": {}}', b"\xff"):
        with pytest.raises(ValueError, match="not a JWKS"):
            parse_key_set(content)


async def test_a_scope_may_be_required() -> None:
    tokens = verifier(rules=TokenRules(RULES.issuer, RULES.audience, scope="analyze"))
    assert await tokens.subject(token(scope="read analyze")) == "acme"
    assert await reason(token(scope="read"), tokens) == "SCOPE_MISSING"
    assert await reason(token(), tokens) == "SCOPE_MISSING"


async def test_keys_are_replaced_in_time_and_kept_for_a_while_when_their_source_is_down(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "jwks.json"
    keys = SigningKeys(file.read_bytes, refresh_seconds=60, stale_seconds=600, clock=lambda: now)
    tokens = TokenVerifier(RULES, keys)
    assert await reason(token(), tokens) == "TOKEN_KEYS_UNAVAILABLE"
    file.write_text(json.dumps({"keys": [public(EC, "e")]}))
    now = 20.0
    assert await tokens.subject(token()) == "acme"
    file.write_text(json.dumps({"keys": [public(RSA, "r")]}))
    assert await tokens.subject(token()) == "acme"  # not yet read again
    now = 40.0
    assert await tokens.subject(token(RSA, "RS256", "r")) == "acme"  # an unknown id is asked for at once
    assert await reason(token(), tokens) == "TOKEN_INVALID"
    file.unlink()
    now = 500.0
    assert await tokens.subject(token(RSA, "RS256", "r")) == "acme"
    now = 700.0
    assert await reason(token(RSA, "RS256", "r"), tokens) == "TOKEN_KEYS_UNAVAILABLE"


async def test_invented_key_ids_do_not_flood_the_source() -> None:
    now, asked = 0.0, 0

    def read() -> bytes:
        nonlocal asked
        asked += 1
        return json.dumps(KEY_SET).encode()

    tokens = TokenVerifier(RULES, SigningKeys(read, refresh_seconds=60, stale_seconds=600, clock=lambda: now))
    for number in range(50):
        assert await reason(token(key_id=f"invented {number}"), tokens) == "TOKEN_INVALID"
    assert asked == 1


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
            return
        if self.path == "/cut":
            self.wfile.write(b"no HTTP")
            return
        content = json.dumps(KEY_SET).encode() if self.path == "/keys" else b" " * (300 << 10)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def issuer() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join(10)
    server.server_close()


async def test_keys_come_from_a_url_without_redirects_and_without_end(issuer: str) -> None:
    def tokens(path: str) -> TokenVerifier:
        return TokenVerifier(RULES, SigningKeys(reader(issuer + path), refresh_seconds=60, stale_seconds=60))

    assert await tokens("/keys").subject(token()) == "acme"
    assert await reason(token(), tokens("/moved")) == "TOKEN_KEYS_UNAVAILABLE"
    assert await reason(token(), tokens("/cut")) == "TOKEN_KEYS_UNAVAILABLE"
    assert await reason(token(), tokens("/endless")) == "TOKEN_KEYS_UNAVAILABLE"


@pytest.mark.parametrize("source", ["http://issuer.example/keys", "ftp://127.0.0.1/keys", "file:///etc/passwd"])
def test_plain_http_to_other_machines_and_other_schemes_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match="neither a path nor an https URL"):
        reader(source)
