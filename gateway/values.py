"""Values: how the text of a setting is read, with what would be right when it cannot be."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticKnownError

from gateway.core.addresses import Network, parse_network
from gateway.core.origins import parse_origin

LEAST_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 has as many bytes as the hash."""

MAX_PORT = 65535
_PLACE = re.compile(r"[^\[\]]+|\[[^\[\]]+\](:[^\[\]]*)?")
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _bytes(value: object) -> object:
    shape = re.fullmatch(r"\s*(\d+)\s*([kmg]?i?b?)\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    if shape is None or shape[2].lower() not in _UNITS:
        return value
    return int(shape[1]) * _UNITS[shape[2].lower()]


def words(value: object) -> object:
    return tuple(re.split(r"[,\s]+", value.strip(", \t\n"))) if isinstance(value, str) and value.strip() else value


def _number(kind: Literal["int_type", "float_type"]) -> BeforeValidator:
    def checked(value: object) -> object:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(checked)


WHOLE, NUMBER = _number("int_type"), _number("float_type")
"""What makes `int` and `float` take no true and no false, which are 1 and 0 for Python."""

Bytes = Annotated[int, Field(ge=0), BeforeValidator(_bytes), WHOLE]
Count = Annotated[int, Field(ge=0), WHOLE]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]


class Address(BaseModel):
    """Where to listen."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int = Field(ge=0, le=MAX_PORT)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _address(value: object) -> object:
    if isinstance(value, Address):
        return value
    shape = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]*)):(\d{1,5})", value) if isinstance(value, str) else None
    if shape is None:
        raise ValueError("give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    if int(shape[3]) > MAX_PORT:
        raise ValueError(f"there is no port {shape[3]}; give one up to {MAX_PORT}, or 0 for any free one")
    return Address(host=shape[1] or shape[2] or "0.0.0.0", port=int(shape[3]))  # noqa: S104 - asked for by an empty host


def _nats_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    problem = _nats_url_problem(value)
    if problem is not None:
        raise ValueError(f"{problem}give NATS servers as nats://host:4222 or tls://host:4222")
    return value


def _nats_url_problem(url: str) -> str | None:
    """What is wrong with a NATS server, in front of the mend; None: nothing. It says nothing of the URL itself, where
    any part may be one of a password. nats-py asks none of several servers where it cannot read one."""
    if re.match(r"wss?://", url):
        return "NATS over WebSocket is not supported; "
    if not re.fullmatch(r"(nats|tls)://\S*", url):
        return ""
    no_host = "its host is missing or cannot be read (brackets are for IPv6: nats://[::1]:4222); "
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket without its other
        return no_host
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        return "something stands behind its port (a login with / ? or # goes into NATS_USER and NATS_PASSWORD); "
    if parts.hostname in (None, "none") or not _PLACE.fullmatch(parts.netloc.rpartition("@")[2]):
        return no_host
    return None if _has_a_place(url) else f"its port is none from 1 to {MAX_PORT}; "


def _http_url(value: object) -> object:
    if isinstance(value, str) and not (re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value) and _has_a_place(value)):
        raise ValueError("give a URL such as https://issuer.example.com/.well-known/jwks.json, without a login in it")
    return value


def _has_a_place(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # a bracket without its other, a port beyond all ports
        return False


def _secret_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8; a new one: openssl rand -base64 48") from None
    if re.search(r"-----BEGIN |^(ssh|ecdsa)-", value):
        # Public keys are public, and a secret that everybody has proves nothing (RFC 8725, section 2.1).
        raise ValueError("it is a key, not a secret; public keys belong into NATSGATE_JWT_PUBLIC_KEY_FILE")
    if size < LEAST_SECRET_BYTES:
        raise ValueError(f"give at least {LEAST_SECRET_BYTES} bytes; a new one: openssl rand -base64 48")
    return value


def _origin(value: object) -> object:
    return parse_origin(value) if isinstance(value, str) else value


HttpUrl = Annotated[str, BeforeValidator(_http_url)]
Secret = Annotated[SecretStr, BeforeValidator(_secret_text)]


def revealed(secret: SecretStr | None) -> str | None:
    """The text of a secret, for whoever needs it to sign in or to sign."""
    return None if secret is None else secret.get_secret_value()


def _proxy(value: object) -> object:
    if isinstance(value, str):
        return parse_network(value)
    if isinstance(value, Network):
        return value
    raise ValueError("give an address or a network in quotes: 10.0.0.0/8, 192.0.2.7 or ::1")


Proxy = Annotated[Network, BeforeValidator(_proxy)]
Origin = Annotated[str, BeforeValidator(_origin)]
NatsUrl = Annotated[str, BeforeValidator(_nats_url)]
Listen = Annotated[Address, BeforeValidator(_address)]


def _token(most_chars: int, *, dotted: bool = False) -> AfterValidator:
    """A name that is one token of a NATS subject, or with `dotted` several."""
    pattern = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*" if dotted else r"[A-Za-z0-9_-]+", re.ASCII)

    def checked(value: str) -> str:
        if not pattern.fullmatch(value) or len(value) > most_chars:
            dots = ", and dots between them" if dotted else ""
            raise ValueError(f"give a name of at most {most_chars} of the characters A-Z a-z 0-9 - _{dots}")
        return value

    return AfterValidator(checked)


Name = Annotated[str, _token(255)]
Root = Annotated[str, _token(64)]
Prefix = Annotated[str, _token(255, dotted=True)]
