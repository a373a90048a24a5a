"""What lasts from `with` to its end: processes and servers that run, connections that are open."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Running:
    """Runs from `with`, or `async with`, to its end. `start` and `stop` block; `async with` has a thread for them."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> object:
        """End it; nothing happens when it does not run."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


class Opened:
    """Is open from `async with` to its end."""

    async def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close it; nothing happens when it is not open."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
