"""Transports: how a request becomes a connection that holds the socket itself, and what such connections do."""
