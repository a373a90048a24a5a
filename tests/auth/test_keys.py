"""Keys: where they come from, of which kinds they are, and what is said of those that are none."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from gateway.core.errors import ConfigError
from gateway.core.revoked import Revoked
from gateway.identity import Identity
from gateway.logs import logger
from gateway.settings import load_settings
from tests.auth.knock import let_in, refused
from tests.conftest import StartGateway
from tests.support.command import natsgate
from tests.support.tokens import SECRET, claims, private_key, public_pem, sign, token

MINE = ["user.{sub}.>"]


def certificate(algorithm: str) -> str:
    """A certificate of the process's key, over long ago: it carries a key, and nothing else of it counts."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    then = datetime(2001, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, private_key(algorithm).public_key(), 1, then, then + timedelta(days=1))
    return made.sign(private_key("ES256"), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_public_key(start_gateway: StartGateway, tmp_path: Path, algorithm: str) -> None:
    """A public key, in the environment, in a file or in a certificate, takes tokens of its own algorithm."""
    pem = {"RS256": public_pem("RS256"), "ES256": public_pem("ES256"), "EdDSA": certificate("EdDSA")}[algorithm]
    settings: dict[str, object] = {"JWT_PUBLIC_KEY": pem}
    if algorithm == "ES256":
        (tmp_path / "key.pem").write_text(pem)
        settings = {"JWT_PUBLIC_KEY_FILE": tmp_path / "key.pem"}
    gateway = await start_gateway(AUTH="jwt", settings=settings)
    good = claims(subscribe=MINE)
    await let_in(gateway, sign(good, algorithm=algorithm))
    await let_in(gateway, sign(good, algorithm=algorithm, headers={"kid": "any"}))
    other: object = {
        "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    await refused(gateway, sign(good, algorithm=algorithm, key=other), "signature")


async def test_a_secret_beside_a_public_key(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A secret in a file, its line break left out, and a public key: tokens of both are taken, each by its own."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    settings = {"JWT_SECRET_FILE": tmp_path / "secret", "JWT_PUBLIC_KEY": public_pem("ES256")}
    gateway = await start_gateway(AUTH="jwt", settings=settings)
    await let_in(gateway, token(subscribe=MINE))
    await let_in(gateway, sign(claims(subscribe=MINE), algorithm="ES256"))
    await refused(gateway, sign(claims(subscribe=MINE), key=SECRET + "\n"), "signature")


def pem_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed448.Ed448PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem() -> str:
    pem: bytes = private_key("ES256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


WRONG: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "nothing": ({}, ("JWT_SECRET_FILE", "JWT_PUBLIC_KEY_FILE", "JWKS_URL")),
    "short secret": ({"JWT_SECRET": "shibboleth"}, ("JWT_SECRET", "32 bytes", "openssl")),
    "a public key as secret": ({"JWT_SECRET": public_pem("RS256")}, ("JWT_SECRET", "JWT_PUBLIC_KEY_FILE")),
    "an SSH key as secret": ({"JWT_SECRET": "ssh-ed25519 " + "A" * 68}, ("JWT_SECRET", "JWT_PUBLIC_KEY_FILE")),
    "a private key as secret": ({"JWT_SECRET": private_pem()}, ("JWT_SECRET", "not a secret")),
    "no UTF-8": ({"JWT_SECRET": "\udcff" * 40}, ("JWT_SECRET", "UTF-8")),
    "no key": ({"JWT_PUBLIC_KEY": "shibboleth"}, ("JWT_PUBLIC_KEY", "BEGIN PUBLIC KEY")),
    "an empty key": ({"JWT_PUBLIC_KEY": ""}, ("JWT_PUBLIC_KEY",)),
    "escaped line breaks": ({"JWT_PUBLIC_KEY": public_pem("ES256").replace("\n", "\\n")}, ("JWT_PUBLIC_KEY", "\\n")),
    "a private key": ({"JWT_PUBLIC_KEY": private_pem()}, ("JWT_PUBLIC_KEY", "private", "-pubout")),
    "two keys": ({"JWT_PUBLIC_KEY": public_pem("RS256") + public_pem("ES256")}, ("JWT_PUBLIC_KEY", "JWKS_URL")),
    "a broken key": (
        {"JWT_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\nshibboleth\n-----END PUBLIC KEY-----"},
        ("JWT_PUBLIC_KEY",),
    ),
    "a broken certificate": (
        {"JWT_PUBLIC_KEY": "-----BEGIN CERTIFICATE-----\nshibboleth\n-----END CERTIFICATE-----"},
        ("JWT_PUBLIC_KEY",),
    ),
    "few bits": (
        {"JWT_PUBLIC_KEY": pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key())},
        ("JWT_PUBLIC_KEY", "1024", "2048"),
    ),
    "another curve": (
        {"JWT_PUBLIC_KEY": pem_of(ec.generate_private_key(ec.SECP384R1()).public_key())},
        ("JWT_PUBLIC_KEY", "secp384r1", "P-256"),
    ),
    "another kind": (
        {"JWT_PUBLIC_KEY": pem_of(ed448.Ed448PrivateKey.generate().public_key())},
        ("JWT_PUBLIC_KEY", "Ed25519"),
    ),
    "no URL": ({"JWKS_URL": "issuer.example.com/keys"}, ("JWKS_URL", "https://")),
    "no port": ({"JWKS_URL": "https://issuer.example.com:99999/keys"}, ("JWKS_URL", "https://")),
    "half a host": ({"JWKS_URL": "https://[::1/keys"}, ("JWKS_URL", "https://")),
    "a file": ({"JWKS_URL": "file:///etc/passwd"}, ("JWKS_URL", "https://")),
    "a login": ({"JWKS_URL": "https://me:shibboleth@issuer.example.com/keys"}, ("JWKS_URL", "login")),
    "an empty issuer": ({"JWT_SECRET": SECRET, "JWT_ISSUER": ""}, ("JWT_ISSUER",)),
    "an empty audience": ({"JWT_SECRET": SECRET, "JWT_AUDIENCE": ""}, ("JWT_AUDIENCE",)),
    "a negative leeway": ({"JWT_SECRET": SECRET, "JWT_LEEWAY_S": "-1"}, ("JWT_LEEWAY_S",)),
    "a leeway of days": ({"JWT_SECRET": SECRET, "JWT_LEEWAY_S": "86400"}, ("JWT_LEEWAY_S", "600")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_key_stops_the_start(case: str) -> None:
    """One line names the setting and the mend, and shows nothing of the key."""
    settings, names = WRONG[case]
    with pytest.raises(ConfigError) as refused:
        start(settings)
    said = str(refused.value)
    assert len(said.splitlines()) == 1
    for name in names:
        assert name in said
    assert "shibboleth" not in said
    assert private_pem().splitlines()[1] not in said


def start(settings: dict[str, object]) -> None:
    """What a gateway does with its settings before it opens anything."""
    environ = {f"NATSGATE_{name}": str(value) for name, value in {"AUTH": "jwt", **settings}.items()}
    Identity(load_settings(environ), Revoked(), random=Random(), now=time.monotonic, log=logger())


@pytest.mark.parametrize("case", ["no UTF-8", "two keys"])
def test_its_exit_code(case: str) -> None:
    """`natsgate serve` says that line and ends with code 2."""
    settings, names = WRONG[case]
    # Nothing listens there: whoever went on to NATS would hang.
    nowhere = {"AUTH": "jwt", "LISTEN": "127.0.0.1:0", "NATS_URL": "nats://127.0.0.1:1"}
    done = natsgate("serve", settings={**nowhere, **settings})
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for name in names:
        assert name in done.stderr
