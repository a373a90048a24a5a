"""Tokens for tests: keys of each kind, and JWTs signed with them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
JWT: dict[str, object] = {"AUTH": "jwt", "JWT_SECRET": SECRET}
"""The settings of a gateway that takes tokens signed with SECRET."""


@cache
def private_key(algorithm: str) -> Any:
    """One private key per algorithm and process: `RS256`, `ES256`, `EdDSA`."""
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(algorithm)


def public_pem(algorithm: str) -> str:
    """The public half of `private_key`, as PEM."""
    pem: bytes = private_key(algorithm).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def jwk(algorithm: str, kid: str | None = None, key: Any = None) -> dict[str, Any]:
    """The public half of a private key (the process's own when absent) as a JSON Web Key."""
    public = (key or private_key(algorithm)).public_key()
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    return found | ({} if kid is None else {"kid": kid})


def claims(
    sub: str | None = "alice",
    *,
    subscribe: Sequence[str] = (),
    publish: Sequence[str] = (),
    ttl_s: float = 3600,
    **more: Any,
) -> dict[str, Any]:
    """The claims of a token that ends in `ttl_s`; `more` overrides, and None leaves a claim out."""
    now = time.time()
    found: dict[str, Any] = {
        "sub": sub,
        "iat": int(now),
        "exp": int(now + ttl_s),
        "natsgate": {"subscribe": list(subscribe), "publish": list(publish)},
    }
    return {name: value for name, value in (found | more).items() if value is not None}


def sign(
    content: Mapping[str, Any],
    *,
    algorithm: str = "HS256",
    key: Any = None,
    headers: dict[str, Any] | None = None,
) -> str:
    """A JWT of these claims; `key` absent: SECRET, or the process's private key."""
    if key is None:
        key = SECRET if algorithm.startswith("HS") else private_key(algorithm)
    return jwt.encode(dict(content), key, algorithm=algorithm, headers=headers)


def token(sub: str | None = "alice", **more: Any) -> str:
    """A JWT (HS256, SECRET); see `claims`."""
    return sign(claims(sub, **more))


def crafted(header: bytes, payload: bytes, secret: bytes = SECRET.encode()) -> str:
    """A token of these very bytes, signed by HMAC-SHA256 whatever its header says."""
    signed = f"{_base64url(header)}.{_base64url(payload)}"
    return f"{signed}.{_base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer(text: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {text}"}
