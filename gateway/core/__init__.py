"""The rules, pure: no asyncio, clock, environment, logging, NATS or HTTP. Values and bytes in, values and bytes out."""
