"""The one tab of a browser, led from page to page by the pages' own script: no WebDriver is between."""

from __future__ import annotations

import itertools
from typing import Any

from tests.support.browser import Browser
from tests.support.eventually import Never, eventually, wait_until
from tests.support.site import Site

PATIENCE_S = 20.0
START_S = 60.0
Report = dict[str, Any]


class PageError(AssertionError):
    """A script that a test ran in a page threw something."""


class Page:
    """A page that is open: it takes scripts and reports what it sees.

    Reports are objects with a `kind`: see page.js. Those of an EventSource are `open`, `error`, `message` and the names
    of events; those of a WebSocket `open`, `failure`, `close` and the messages' `op`.
    """

    _runs = itertools.count()

    def __init__(self, site: Site, number: int, origin: str) -> None:
        self._site = site
        self._number = number
        self.origin = origin

    def reports(self, *kinds: str) -> list[Report]:
        """What it has reported so far, of these kinds or of all."""
        return [each for each in self._site.reports(self._number) if not kinds or each["kind"] in kinds]

    async def until(self, kind: str, count: int = 1, *, timeout_s: float = PATIENCE_S) -> list[Report]:
        """Wait until it has reported `kind` so many times, and return these reports."""

        async def said() -> list[Report] | None:
            found = self.reports(kind)
            return found if len(found) >= count else None

        try:
            return await eventually(said, f"{count} x {kind}", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page of {self.origin} said {self.reports()[-20:]}") from None

    async def run(self, script: str, **args: Any) -> Any:
        """Run the body of an asynchronous function in the page, and return what it returns.

        Args:
            script: JavaScript; it sees `args`, and what page.js defines. `globalThis` keeps things for the next one.
            args: become JSON.

        Raises:
            PageError: it threw.
        """
        run = next(self._runs)
        self._site.tell(self._number, run=run, script=script, args=args)

        async def ended() -> Report | None:
            return next((each for each in self.reports("done", "failed") if each["run"] == run), None)

        report = await eventually(ended, f"the script ends: {script}", timeout_s=PATIENCE_S)
        if report["kind"] == "failed":
            raise PageError(f"{report['error']} in: {script}")
        return report.get("result")


class Tab:
    """The tab of one browser.

    Attributes:
        browser: the browser.
        site: serves its pages.
    """

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser = browser
        self.site = site
        self._page = site.mailbox()

    def start(self, origin: str) -> None:
        """Start the browser with a page of this origin, and wait for the page's first word.

        Raises:
            NotInstalled: there is no such browser.
        """
        self.browser.start(f"{origin}/?page={self._page}")

        def here() -> bool:
            assert self.browser.running, f"{self.browser.name} has ended: {self.browser.log_text}"
            return bool(self.site.reports(self._page))

        try:
            wait_until(here, "its page is there", timeout_s=START_S)
        except Never as error:
            raise AssertionError(f"{self.browser.name}: {error}; it said {self.browser.log_text[-2000:]}") from None

    async def visit(self, origin: str) -> Page:
        """Leave the page that is open, which closes its connections, for a new one of this origin."""
        assert self.browser.running, f"{self.browser.name} has ended: {self.browser.log_text[-2000:]}"
        number = self.site.mailbox()
        self.site.tell(self._page, go=f"{origin}/?page={number}")
        self._page = number
        page = Page(self.site, number, origin)
        (here,) = await page.until("here")
        assert here["origin"] == origin
        return page
