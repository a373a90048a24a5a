"""The keys that an issuer publishes at a URL, as a JSON Web Key Set (RFC 7517).

They are fetched and read in a thread, so that an issuer that is slow, or says a lot, never blocks the loop, and kept
while it is away. They are fetched anew now and then, and when a token names a key that is not known: at most once per
`FLOOR_S`, since anybody can name one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, get_args

import orjson

from gateway.auth.download import NotDownloaded, download
from gateway.auth.jose import BadKey, Key, key_set
from gateway.core.errors import ComeBack
from gateway.core.recent import Recent
from gateway.core.schedule import backoff
from gateway.logs import Logger

REFRESH_S = 300.0
"""How often the keys are fetched when all is well."""

FLOOR_S = 10.0
"""The least time between two fetches for the sake of unknown key names."""

FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 2**20
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 30.0
ABSENT_BYTES = 2**18
"""What may be remembered of key names that the issuer was asked for and does not have."""

Fetched = Literal["done", "failed"]


class Jwks:
    """The keys of one issuer.

    Concurrency: one task runs `run`; any number of others call `fetched`, which share one fetch.

    Args:
        url: where they are.
        random: for the jitter of retries.
        log: for what goes wrong.
        changed: called when the keys are others than before.
        now: monotonic seconds.

    Attributes:
        loaded: whether they were fetched at some time.
        trouble: why the last fetch failed; empty when it did not. It does not hold the URL.
        fetches: how many there were, by outcome.
        absent: algorithms and key names that the issuer was asked for and does not have.
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
        self.absent: Recent[tuple[str, str | None], bool] = Recent(ABSENT_BYTES)
        self.fetches: Counter[Fetched] = Counter(dict.fromkeys(get_args(Fetched), 0))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def shown_url(self) -> str:
        """The URL without its query, which may be a password."""
        return self._url.partition("?")[0]

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

    def known(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys of the last fetch that fit a token's header."""
        return [key for key in self._keys if key.fits(algorithm, kid)]

    async def fetched(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that fit, for a token that none of the known ones has signed.

        Raises:
            ComeBack: the issuer cannot be asked, or not yet, so a key that is not known may still be its.
        """
        if self._fetching is not None or self._now() - self._asked_at >= FLOOR_S:
            self._asked_at = self._now()
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    await self.refresh()
            except TimeoutError:
                raise _not_now() from None  # names that are looked up slowly are not in the download's own time
            if not self.trouble:
                self._lacks(algorithm, kid)
        elif self.absent.get((algorithm, kid)) is None:
            raise ComeBack(
                "The token's key (kid) is not one that is known, and its issuer was asked for new ones a moment ago; "
                "come again."
            )  # it may have come since: whoever signs with a new key is not to be sent away for good
        if self.trouble:
            raise _not_now()
        return self.known(algorithm, kid)

    def _lacks(self, algorithm: str, kid: str | None) -> None:
        self.absent.put((algorithm, kid), True, len(kid or ""))

    async def refresh(self) -> None:
        """Fetch the keys now; `trouble` says how it went. Those who ask at the same time share one fetch."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        # Shielded: whoever waits may go, the others still want it.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            document, keys = await asyncio.to_thread(_read, self._url, self._document, self._keys)
        except (NotDownloaded, BadKey) as error:
            self.fetches["failed"] += 1
            if str(error) != self.trouble:
                self._log.warning("jwks_not_fetched", error=str(error), url=self.shown_url, kept=len(self._keys))
            self.trouble = str(error)
        except Exception as error:  # a fault of ours: said loudly, and tried again; nobody is dropped by it
            self.fetches["failed"] += 1
            self._log.error("jwks_failed", url=self.shown_url, exc_info=error)
            self.trouble = f"a fault in natsgate: {type(error).__name__}; see the log"
        else:
            self.fetches["done"] += 1
            changed = document != self._document
            if changed or self.trouble:
                self._log.info("jwks_loaded", keys=len(keys), url=self.shown_url)
            self.trouble = ""
            self.loaded = True
            if changed:
                for algorithm, kid in _names(self._keys) - _names(keys):
                    self._lacks(algorithm, kid)
                self._document, self._keys = document, keys
                self._changed()
        finally:
            self._fetching = None


def _names(keys: Sequence[Key]) -> set[tuple[str, str | None]]:
    return {(key.algorithm, key.kid) for key in keys}


def _not_now() -> ComeBack:
    return ComeBack("The keys of the token's issuer cannot be fetched now; come again.")


def _read(url: str, before: bytes, keys: tuple[Key, ...]) -> tuple[bytes, tuple[Key, ...]]:
    """The document and its keys; those of before where it is the same."""
    document = download(url, timeout_s=FETCH_TIMEOUT_S, most_bytes=MAX_DOCUMENT_BYTES)
    if document == before:
        return document, keys
    try:
        content = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise BadKey(f"it is no JSON: {error}") from None
    return document, key_set(content)
