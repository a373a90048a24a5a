"""natsgate's gateway: serves NATS events to browsers as Server-Sent Events and WebSocket."""

__version__ = "0.1.0"
