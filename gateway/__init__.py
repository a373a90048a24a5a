"""natsgate's gateway: serves NATS events to browsers as Server-Sent Events and WebSocket."""

from importlib.metadata import version

__version__ = version("natsgate")
