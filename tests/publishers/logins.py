"""What nats-servers ask of their clients: keys, signed credentials and certificates, made for one test."""

from __future__ import annotations

import base64
import json
import os
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def new_key(kind: int) -> nkeys.KeyPair:
    """A fresh nkey, e.g. of kind `nkeys.PREFIX_BYTE_USER`."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), kind)))


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, name: str, claims: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = {
        "jti": name,
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "name": name,
        "sub": subject.public_key.decode(),
        "nats": {"version": 2, **claims},
    }
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    signature = base64.urlsafe_b64encode(issuer.sign(signed.encode())).rstrip(b"=").decode()
    return f"{signed}.{signature}"


def operator_config(folder: Path) -> tuple[str, Path]:
    """A server configuration in operator mode, and the path of a user's `.creds` file for it."""
    operator, account, user = (
        new_key(kind) for kind in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    names = "subs data payload imports exports conn leaf mem_storage disk_storage streams consumer"
    everything = dict.fromkeys(names.split(), -1)
    limits = {"limits": {**everything, "wildcards": True}, "type": "account"}
    account_jwt = _jwt(operator, account, "account", limits)
    rights = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user"}
    user_jwt = _jwt(account, user, "user", rights)
    creds = folder / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    operator_jwt = _jwt(operator, operator, "operator", {"type": "operator"})
    system = new_key(nkeys.PREFIX_BYTE_ACCOUNT)  # JetStream does not start without one
    plain = {**everything, "mem_storage": 0, "disk_storage": 0, "streams": 0, "consumer": 0, "wildcards": True}
    system_jwt = _jwt(operator, system, "SYS", {"limits": plain, "type": "account"})
    accounts = {account.public_key.decode(): account_jwt, system.public_key.decode(): system_jwt}
    preload = "\n".join(f"{key}: {jwt}" for key, jwt in accounts.items())
    config = f"operator: {operator_jwt}\nsystem_account: {system.public_key.decode()}\n"
    return f"{config}resolver: MEMORY\nresolver_preload: {{ {preload} }}\n", creds


def certificates(folder: Path) -> dict[str, Path]:
    """An authority (`ca`), and certificate and key of a server on 127.0.0.1 and of a client."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("ca", authority_key, "ca", authority_key, authority=True)
    _write(folder, "ca", authority_key, authority)
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder, name, key, _certificate(name, key, "ca", authority_key, authority=False))
    return {path.name: path for path in folder.iterdir()}


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    signs = {"key_cert_sign": authority, "crl_sign": authority, "digital_signature": not authority}
    other = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = x509.KeyUsage(**signs, **dict.fromkeys(other, False), decipher_only=False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(address, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
