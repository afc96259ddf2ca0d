"""Runs the commands of one entry, one after the other: each once, and only in a session that lives."""

from isochrone.errors import InvalidRequest, IsochroneError, QueueFull
from isochrone.ids import Timestamp
from isochrone.probes import probe
from isochrone.regions.state import sessions
from isochrone.regions.state.model import ApplyContext, Handlers, Happening
from isochrone.wire.commands import (
    CloseSession,
    Command,
    OpenSession,
    check_operation,
    decode_command,
    encode_result,
)

ENTRY_RESULTS_BYTES_MAX = 64 << 20
"""When the results of an entry's commands have so many bytes, the next ones are refused: all are in memory at once, on
every replica."""


def run_commands(
    context: ApplyContext, handlers: Handlers, commands: list[bytes], timestamp: Timestamp
) -> list[bytes | IsochroneError]:
    """Run encoded commands, the first at `timestamp`. Returns the result of each, or why it was refused."""
    outcomes: list[bytes | IsochroneError] = []
    left_bytes = ENTRY_RESULTS_BYTES_MAX
    for at, data in enumerate(commands, timestamp):
        context.begin(Timestamp(at))
        try:
            if left_bytes <= 0:
                raise QueueFull("the commands applied together have too many bytes of results already")
            result = _run(decode_command(data), context, handlers)
        except IsochroneError as error:
            outcomes.append(error)
        else:
            outcomes.append(result)
            left_bytes -= len(result)
    return outcomes


def _run(command: Command, context: ApplyContext, handlers: Handlers) -> bytes:
    operation = command.operation
    if isinstance(operation, OpenSession):
        check_operation(operation)
        return encode_result(sessions.open_session(context, operation))
    if not command.session:
        return _handle(command, context, handlers)
    use, stored = sessions.admit(context, command)
    if stored is not None:
        probe("state.repeated_command")
        context.happened.append(Happening.COMMAND_REPEATED)
        return sessions.told_again(stored)
    if isinstance(operation, CloseSession):
        return encode_result(sessions.close_session(context, command))
    try:
        result = _handle(command, context, handlers)
    except IsochroneError as error:
        raise sessions.store_refusal(context, command, use, error) from None
    sessions.store_result(context, command, use, result)
    return result


def _handle(command: Command, context: ApplyContext, handlers: Handlers) -> bytes:
    check_operation(command.operation)
    handler = handlers.get(type(command.operation))
    if handler is None:
        raise InvalidRequest(f"no command family handles {type(command.operation).__name__}")
    return encode_result(handler(context, command.operation))
