"""NATS, seen from the gateway: the connection, the JetStream API, and the tap that feeds the log."""
