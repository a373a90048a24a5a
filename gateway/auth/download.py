"""A download: one small document over HTTP, within a time and a size, however its server behaves.

In a thread of the caller's, with a loop of its own. In a thread, since chunks of one byte keep httpx from giving way
for most of a second; on a loop, since a timeout of httpx begins anew with every byte, and one of asyncio does not.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from gateway.http_client import HEADERS, MOST_SHOWN, reason


class NotDownloaded(Exception):
    """There is no document; the text says why, in one line of ASCII. It does not hold the URL."""


def download(url: str, *, timeout_s: float, most_bytes: int) -> bytes:
    """The document at an http or https URL, by the proxies and the certificates of the environment.

    Redirects are not followed: what is trusted for the keys that it gives is the URL in the settings.

    Raises:
        NotDownloaded: the server is away, slow, says something else than 200, or too much.
    """
    import httpx  # a gateway without an issuer does without

    async def document() -> bytes:
        proxy, authorities = _proxy(url), ssl.create_default_context()
        try:
            client = httpx.AsyncClient(
                headers=HEADERS,
                proxy=proxy,
                timeout=httpx.Timeout(None),
                trust_env=False,
                verify=authorities,
            )
        except (ImportError, ValueError, httpx.InvalidURL):  # what they say may hold its password
            raise NotDownloaded("the environment's proxy is of no use; give one as http://host:port") from None
        body = bytearray()
        deadline = asyncio.timeout(timeout_s)
        async with deadline, client, client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code != 200:
                where = answer.headers.get("location") if answer.is_redirect else None
                whither = "" if where is None else f", to {_shown(where)}; give the URL of the keys themselves"
                raise NotDownloaded(f"the server answers with status {answer.status_code}{whither}")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > most_bytes:
                    raise NotDownloaded(f"it is larger than {most_bytes} bytes")
        return bytes(body)

    try:
        return asyncio.run(document())
    except TimeoutError:
        raise NotDownloaded(f"no whole answer within {timeout_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:  # the last: a host that is no name
        raise NotDownloaded(_shown(reason(error))) from None


def _shown(text: str) -> str:
    return ascii(text[:MOST_SHOWN])[1:-1]


def _proxy(url: str) -> str | None:
    """The environment's, by the rules of the standard library: httpx' own refuse every request for the sake of one IPv6
    network in NO_PROXY."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
