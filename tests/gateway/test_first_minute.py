"""The first minute of the README, in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.deploy.chromium import Chromium
from tests.support.dev import Dev
from tests.support.eventually import wait_until

PAGE = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.slow
async def test_the_address_on_the_screen_and_the_line_of_the_readme_show_events(tmp_path: Path) -> None:
    """The address that `natsgate dev` shows for a browser opens there, and the README's line, in the console of that
    page, logs events."""
    (line,) = [
        block for block in re.findall(r"^```js\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "location" in block
    ]
    with Dev(tmp_path / "project", tmp_path / "around") as dev:
        await asyncio.to_thread(wait_until, dev.is_ready, "natsgate dev serves", timeout_s=20)
        token = await asyncio.to_thread(lambda: dev.token)
        address = f"{dev.url}/events?subject=repo.%3E&access_token={token}"
        assert address in dev.output.split()
        async with Chromium(tmp_path / "chromium") as browser:
            await browser.visit(address)
            logged = await browser.run(
                f"new Promise(done => {{ console.log = event => done(JSON.stringify(event)); {line} }})"
            )
            assert {"type", "payload"} <= json.loads(logged).keys()
