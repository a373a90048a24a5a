"""The WebSocket stream class against the whole of RFC 6455: see the README of this folder."""
