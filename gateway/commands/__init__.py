"""What operators type: each command in its own module; `gateway.cli` only defines how they are spelled."""
