"""JSON Web Tokens (RFC 7519) by PyJWT, the only module that knows it.

Each key belongs to one algorithm, and the algorithm is chosen by the key, never by the token: a public key is never
tried as an HMAC secret, and `none` has no key (RFC 8725, sections 2.1 and 3.1).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from gateway.core.closing import Closing
from gateway.core.errors import AuthFailure, Unauthorized
from gateway.core.rights import BadClaims, time_of

LEAST_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

PUBLIC = frozenset({"RS256", "ES256", "EdDSA"})
"""The algorithms whose keys may be public."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+")
"""The compact serialization (RFC 7515, sections 2 and 7.1): no padding, so one token has one spelling."""


class BadKey(ValueError):
    """Something is no key that tokens can be checked with; the text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm it is for. `kid` names it; None: it has no name and fits every token."""

    algorithm: str
    kid: str | None
    material: Any = field(repr=False)

    def fits(self, algorithm: str, kid: str | None) -> bool:
        """Whether a token with this header may have been signed with it."""
        return self.algorithm == algorithm and (self.kid is None or kid is None or self.kid == kid)


def secret_key(secret: bytes) -> Key:
    """The key of HS256. The settings see to it that it is long enough."""
    return Key("HS256", None, secret)


def public_key(pem: str) -> Key:
    """The key in a PEM text: a public key, or a certificate.

    Raises:
        BadKey: it is none, or of a kind that is not taken.
    """
    kinds = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", pem)
    if any(kind.endswith("PRIVATE KEY") for kind in kinds):
        raise BadKey("it holds a private key; give the public one: openssl pkey -in private.pem -pubout")
    if len(kinds) > 1:
        raise BadKey(f"it holds {len(kinds)} keys or certificates; give one (several: a key set at NATSGATE_JWKS_URL)")
    try:
        if kinds == ["CERTIFICATE"]:
            material: Any = load_pem_x509_certificate(pem.encode("ascii")).public_key()
        else:
            material = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        hint = r" with real line breaks, not \n" if r"\n" in pem else ""
        raise BadKey(f"it is no public key in PEM{hint}: -----BEGIN PUBLIC KEY----- …") from None
    return Key(_algorithm_of(material), None, material)


def _algorithm_of(material: Any) -> str:
    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < LEAST_RSA_BITS:
            raise BadKey(f"the RSA key has {material.key_size} bits; RS256 takes {LEAST_RSA_BITS} or more")
        return "RS256"
    if isinstance(material, ec.EllipticCurvePublicKey):
        if not isinstance(material.curve, ec.SECP256R1):
            raise BadKey(f"the key is on the curve {material.curve.name}; ES256 takes P-256")
        return "ES256"
    if isinstance(material, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise BadKey("keys are RSA (RS256), EC on P-256 (ES256) or Ed25519 (EdDSA)")


def key_set(document: Any) -> tuple[Key, ...]:
    """The usable public keys of a JSON Web Key Set (RFC 7517). What is of another kind or for another use is left out.

    Raises:
        BadKey: it is no key set, or holds no key that can be used.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise BadKey('it is no JSON Web Key Set: {"keys": [...]}')
    keys = []
    for each in listed:
        if not isinstance(each, dict) or each.get("kty") == "oct" or not _is_for_signatures(each):
            continue  # a shared secret in public is nobody's key
        try:
            material = jwt.PyJWK.from_dict(each).key
            algorithm = _algorithm_of(material)
        except (jwt.PyJWTError, BadKey, ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm):
            continue  # one of another kind, such as P-384 or none: it proves nothing here, and the others do
        kid = each.get("kid")
        if each.get("alg", algorithm) == algorithm and (kid is None or isinstance(kid, str)):
            keys.append(Key(algorithm, kid, material))
    if not keys:
        raise BadKey("it holds no key for RS256, ES256 or EdDSA")
    return tuple(keys)


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])  # RFC 7517, sections 4.2 and 4.3
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def read_header(token: str) -> tuple[str, str | None]:
    """Algorithm and key name that a token claims to have: what its key is looked for by. Nothing of it is verified,
    and nothing behind the header is read.

    Raises:
        Unauthorized: it is no JWT.
    """
    encoded = token.partition(".")[0]
    try:
        header = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError:  # of base64, of JSON, or no ASCII
        header = None
    algorithm, kid = (header.get("alg"), header.get("kid")) if isinstance(header, dict) else (None, None)
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise Unauthorized(
            "The token is no JSON Web Token: its header is to be an object with alg, a string.", reason="malformed"
        )
    return algorithm, kid


def verify(
    token: str, keys: Sequence[Key], *, issuer: str | None, audiences: Sequence[str], leeway_s: float, now: float
) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed.

    Args:
        token: as it came.
        keys: those that fit its header, at least one.
        issuer, audiences: what `iss` has to be and `aud` has to hold one of; None and empty: not checked.
        leeway_s: how far clocks may differ, in seconds.
        now: seconds since the epoch.

    Raises:
        Unauthorized: the signature is not one of the keys', or a claim does not hold.
    """
    if not _COMPACT.fullmatch(token):
        raise Unauthorized("The token is no JSON Web Token.", reason="malformed")
    # PyJWT takes "12", true and 1e300 for times; ours are checked by our own clock below.
    options: Any = {"verify_aud": bool(audiences), "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                issuer=issuer,
                audience=list(audiences) or None,
                options=options,
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _refusal(error) from None
        try:
            _check(claims, leeway_s, now)
        except BadClaims as error:
            raise bad_claims(error) from None
        return claims
    raise Unauthorized("The token's signature is not valid here.", reason="signature")


def _check(claims: Mapping[str, Any], leeway_s: float, now: float) -> None:
    """Hold `exp`, `nbf` and `iat` against the clock (RFC 7519, section 4.1; `iat` for clocks that run wild)."""
    if not isinstance(claims.get("iss", ""), str):
        raise BadClaims("iss is to be a string")
    ends = time_of(claims, "exp")
    if ends is None:
        raise BadClaims("exp is missing: a token without an end is not taken")
    for name in ("nbf", "iat"):
        begins = time_of(claims, name)
        if begins is not None and begins > now + leeway_s:
            raise Unauthorized(f"The token is not valid yet: its {name} lies ahead.", reason="not_yet")
    if ends + leeway_s <= now:
        raise expired()


def expired() -> Unauthorized:
    """The refusal of a token whose time is over."""
    return Unauthorized("The token has expired (exp); get a new one.", reason="expired", closing=Closing.TOKEN_EXPIRED)


def bad_claims(error: BadClaims) -> Unauthorized:
    """The refusal of a token that is signed, and says what a gateway cannot work with."""
    return Unauthorized(f"The token's claims: {error}.", reason="claims")


_REFUSALS: tuple[tuple[type[Exception], AuthFailure, str], ...] = (
    (jwt.InvalidIssuerError, "issuer", "The token is of another issuer (iss)."),
    (jwt.InvalidAudienceError, "audience", "The token is meant for another audience (aud)."),
    (jwt.MissingRequiredClaimError, "claims", "The token's claims: one that is checked here is missing: {error}."),
    (jwt.exceptions.InvalidSubjectError, "claims", "The token's claims: sub is to be a string."),
    (jwt.exceptions.InvalidJTIError, "claims", "The token's claims: jti is to be a string."),
)


def _refusal(error: Exception) -> Unauthorized:
    for kind, reason, detail in _REFUSALS:
        if isinstance(error, kind):
            return Unauthorized(detail.format(error=error), reason=reason)
    return Unauthorized("The token is malformed.", reason="malformed")


def sign(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token of these claims, signed with HS256."""
    return jwt.encode(dict(claims), secret, algorithm="HS256")
