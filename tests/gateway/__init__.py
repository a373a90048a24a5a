"""The gateway seen from outside: real nats-servers, real gateway processes, real sockets."""
