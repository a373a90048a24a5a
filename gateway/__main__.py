"""`python -m gateway` is the `natsgate` command."""

from gateway.cli import main

main()
