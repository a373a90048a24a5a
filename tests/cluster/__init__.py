"""The gateway on a three-node NATS cluster with the stream on all of them, while nodes die, freeze and restart."""
