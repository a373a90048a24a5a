"""How a command ends: exit codes, and the error that carries one."""

from __future__ import annotations

from gateway.core.errors import GatewayError

EXIT_DONE, EXIT_WRONG, EXIT_NOT_REACHED = 0, 2, 3


class CommandFailed(GatewayError):
    """The command cannot do what was asked. The text says what is wrong and how to mend it.

    Attributes:
        code: the exit code.
    """

    code = EXIT_WRONG


class NatsNotReached(CommandFailed):
    """NATS did not let us in within the time given."""

    code = EXIT_NOT_REACHED
