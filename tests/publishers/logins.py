"""What nats-servers ask of their clients: keys, signed credentials and certificates, made for one test."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]


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

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2", *authority)
    for name in ("server", "client"):
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2", *signer)
    return {path.name: path for path in folder.iterdir()}
