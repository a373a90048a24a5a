"""The keys that an issuer publishes at a URL, as a JSON Web Key Set (RFC 7517).

They are fetched in a thread, so that an issuer that is slow never blocks the loop, and kept while it is away. They are
fetched anew now and then, and when a token names a key that is not known: at most once per `FLOOR_S`, since anybody can
name one.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from random import Random

import orjson

from gateway.auth.jose import BadKey, Key, key_set
from gateway.core.errors import ComeBack
from gateway.core.schedule import backoff
from gateway.logs import Logger

REFRESH_S = 300.0
"""How often the keys are fetched when all is well."""

FLOOR_S = 10.0
"""The least time between two fetches for the sake of unknown key names."""

FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 2**20
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 30.0


class Jwks:
    """The keys of one issuer.

    Concurrency: one task runs `run`; any number of others call `find`, which share one fetch.

    Args:
        url: where they are.
        random: for the jitter of retries.
        log: for what goes wrong.
        changed: called when the keys are others than before.
        now: monotonic seconds.

    Attributes:
        loaded: whether they were fetched at some time.
        trouble: why the last fetch failed; empty when it did not.
    """

    def __init__(
        self,
        url: str,
        *,
        random: Random,
        log: Logger,
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._url = url
        self._random = random
        self._log = log
        self._changed = changed
        self._now = now
        self._keys: tuple[Key, ...] = ()
        self._document = b""
        self._asked_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self.loaded = False
        self.trouble = "not fetched yet"

    def __len__(self) -> int:
        return len(self._keys)

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        waits = backoff(self._random, RETRY_FIRST_S, RETRY_MOST_S)
        while True:
            await self.refresh()
            if self.trouble:
                await asyncio.sleep(next(waits))
            else:
                waits = backoff(self._random, RETRY_FIRST_S, RETRY_MOST_S)
                await asyncio.sleep(REFRESH_S * self._random.uniform(0.8, 1.0))

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that fit a token's header, fetched anew where none does. Empty: the issuer has none.

        Raises:
            ComeBack: the issuer cannot be asked, so a key that is not known may yet be its.
        """
        keys = self._fitting(algorithm, kid)
        if keys:
            return keys
        if self._fetching is not None or self._now() - self._asked_at >= FLOOR_S:
            self._asked_at = self._now()
            await self.refresh()
            keys = self._fitting(algorithm, kid)
        if not keys and self.trouble:
            raise ComeBack("The keys of the token's issuer cannot be fetched now; come again.")
        return keys

    def _fitting(self, algorithm: str, kid: str | None) -> list[Key]:
        return [key for key in self._keys if key.fits(algorithm, kid)]

    async def refresh(self) -> None:
        """Fetch the keys now; `trouble` says how it went. Those who ask at the same time share one fetch."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        # Shielded: whoever waits may go, the others still want it.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            document = await asyncio.to_thread(_read, self._url)
            content = orjson.loads(document)
            if not isinstance(content, dict):
                raise BadKey('it is no JSON Web Key Set: {"keys": [...]}')
            keys = key_set(content)
        except (OSError, ValueError) as error:  # URLError, BadKey, JSONDecodeError and what http.client raises
            self._failed(error)
        except Exception as error:  # what else a server can make http.client do; the old keys are kept
            self._failed(error)
        else:
            if self.trouble or document != self._document:
                self._log.info("jwks_loaded", keys=len(keys), url=self._url)
            self.trouble = ""
            self.loaded = True
            if document != self._document:
                self._document, self._keys = document, keys
                self._changed()
        finally:
            self._fetching = None

    def _failed(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        trouble = f"{self._url}: {str(reason) or type(reason).__name__}"
        if trouble != self.trouble:
            self._log.warning("jwks_not_fetched", error=trouble, kept=len(self._keys))
        self.trouble = trouble


def _read(url: str) -> bytes:
    # The settings take http and https only, and urllib follows a redirect to nothing but these (and ftp).
    request = urllib.request.Request(url, headers={"accept": "application/json", "user-agent": "natsgate"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
        document: bytes = answer.read(MAX_DOCUMENT_BYTES + 1)
    if len(document) > MAX_DOCUMENT_BYTES:
        raise BadKey(f"it is larger than {MAX_DOCUMENT_BYTES} bytes")
    return document
