"""The operators' commands, run as they are against real nats-servers and gateways."""
