"""The floor: a bare C loop of send() over the same number of sockets (see floor.c)."""

from pathlib import Path

from tests.bench.child import Child
from tests.bench.failure import Unmeasured
from tests.bench.transport import Transport


class Floor(Child):
    """Sends `frame`, the bytes the gateway sent for an event, in the place of the gateway."""

    def __init__(self, program: Path, transport: Transport, frame: bytes, folder: Path, cores: frozenset[int]) -> None:
        greeting_path, frame_path = folder / "greeting", folder / "frame"
        greeting_path.write_bytes(transport.greeting())
        frame_path.write_bytes(frame)
        super().__init__([program, greeting_path, frame_path], cores=cores, stderr=folder / "floor.log")
        self.port = int(self.read())

    def accept(self, clients: int) -> None:
        """Returns when `clients` connections are there in all."""
        self._tell(f"accept {clients}")

    def send(self, first: int, batches: int, *, batch: int, interval_s: float) -> None:
        """Sends `batches` times `batch` frames, joined in one send() per socket; returns after the last."""
        self._tell(f"go {first} {batches} {batch} {int(interval_s * 1e9)}")

    def _tell(self, command: str) -> None:
        if (answer := self.ask(command)) != "done":
            raise Unmeasured(f"floor: {answer}")
