"""JSON Web Tokens (RFC 7519) by PyJWT, the only module that knows it.

Each key belongs to one algorithm, and the algorithm is chosen by the key, never by the token: a public key is never
tried as an HMAC secret, and `none` has no key (RFC 8725, sections 2.1 and 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from gateway.core.closing import Closing
from gateway.core.errors import AuthFailure, Unauthorized

LEAST_RSA_BITS = 2048
"""RFC 7518, section 3.3."""


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
    try:
        if "BEGIN CERTIFICATE" in pem:
            material: Any = load_pem_x509_certificate(pem.encode("ascii")).public_key()
        else:
            material = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, TypeError) as error:
        what = "a private key; give the public one" if "PRIVATE KEY" in pem else f"no public key in PEM ({error})"
        raise BadKey(f"it is {what}: -----BEGIN PUBLIC KEY-----") from None
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


def key_set(document: Mapping[str, Any]) -> tuple[Key, ...]:
    """The usable public keys of a JSON Web Key Set (RFC 7517). What is of another kind or for another use is left out.

    Raises:
        BadKey: it is no key set, or holds no key that can be used.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise BadKey('it is no JSON Web Key Set: {"keys": [...]}')
    keys = []
    for each in listed:
        if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use", "sig") != "sig":
            continue  # a shared secret in public is nobody's key
        try:
            material = jwt.PyJWK.from_dict(each).key
            algorithm = _algorithm_of(material)
        except (jwt.PyJWTError, BadKey, ValueError, TypeError):
            continue  # one of another kind, such as P-384: it proves nothing here, and the others do
        kid = each.get("kid")
        if each.get("alg", algorithm) == algorithm and (kid is None or isinstance(kid, str)):
            keys.append(Key(algorithm, kid, material))
    if not keys:
        raise BadKey("it holds no key for RS256, ES256 or EdDSA")
    return tuple(keys)


def read_header(token: str) -> tuple[str, str | None]:
    """Algorithm and key name that a token claims to have. Nothing of it is verified.

    Raises:
        Unauthorized: it is no JWT.
    """
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized("The token is no JSON Web Token.", reason="malformed") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise Unauthorized("The token's header is malformed: alg and kid are to be strings.", reason="malformed")
    return algorithm, kid


def verify(
    token: str, keys: Sequence[Key], *, issuer: str | None, audiences: Sequence[str], leeway_s: float
) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed.

    Args:
        token: as it came.
        keys: those that fit its header.
        issuer, audiences: what `iss` has to be and `aud` has to hold one of; None and empty: not checked.
        leeway_s: how far clocks may differ, in seconds.

    Raises:
        Unauthorized: the signature is not one of the keys', or a claim does not hold.
    """
    for number, key in enumerate(keys, start=1):
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                issuer=issuer,
                audience=list(audiences) or None,
                leeway=leeway_s,
                options={"require": ["exp"], "verify_aud": bool(audiences)},
            )
        except jwt.InvalidSignatureError:
            if number < len(keys):
                continue
            raise Unauthorized("The token's signature is not valid here.", reason="signature") from None
        except jwt.ExpiredSignatureError:
            raise expired() from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refusal(error) from None
        return claims
    raise Unauthorized("There is no key for this token here.", reason="unknown_key")


def expired() -> Unauthorized:
    """The refusal of a token whose time is over."""
    return Unauthorized("The token has expired; get a new one.", reason="expired", closing=Closing.TOKEN_EXPIRED)


_REFUSALS: tuple[tuple[type[Exception], AuthFailure, str], ...] = (
    (jwt.ImmatureSignatureError, "not_yet", "The token is not valid yet (nbf or iat lies ahead)."),
    (jwt.InvalidIssuerError, "issuer", "The token is of another issuer (iss)."),
    (jwt.InvalidAudienceError, "audience", "The token is meant for another audience (aud)."),
    (jwt.MissingRequiredClaimError, "claims", "The token lacks a claim that is required: {error}."),
    (jwt.exceptions.InvalidSubjectError, "claims", "The token's sub is no string."),
)


def _refusal(error: Exception) -> Unauthorized:
    for kind, reason, detail in _REFUSALS:
        if isinstance(error, kind):
            return Unauthorized(detail.format(error=error), reason=reason)
    return Unauthorized("The token is malformed.", reason="malformed")


def sign(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token of these claims, signed with HS256."""
    return jwt.encode(dict(claims), secret, algorithm="HS256")
