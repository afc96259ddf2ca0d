"""`isochrone lock` and `elect`: work that only one at a time may do."""

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import click

from isochrone.client import FOREVER, Client, Election, Leader, Lock, LockMode
from isochrone.client.answers import as_bytes, expect
from isochrone.client.boot_clock_os import BootClock
from isochrone.errors import InvalidRequest, IsochroneError, LeaseLost, LockHeld
from isochrone.ops.cli.child_os import CannotStart, run_child, this_process
from isochrone.ops.cli.connection import Target, connected, connection_options, output_option, table_output_option
from isochrone.ops.cli.durations import Duration, in_words
from isochrone.ops.cli.kv_view import shown, text
from isochrone.ops.cli.lock_view import lock_parts, lock_to_plain, waiting_line
from isochrone.ops.cli.progress_os import say
from isochrone.ops.cli.signals_os import Diversion, run_command
from isochrone.ops.cli.tables import print_parts
from isochrone.ops.cli.waiting import telling
from isochrone.wire.locks import TOKEN_EPOCH_MAX, LockQuery, LockQueryResult, RaiseTokenEpoch, TokenEpochResult

NOT_GRANTED_STATUS = 124
"""As `timeout` has it for a time that is over."""
LOST_STATUS = 125
"""As `env`, `nohup` and `timeout` have it for what is their own fault and not the command's."""

GRACE_S = 5.0

_ttl_option = click.option(
    "--ttl",
    "ttl_s",
    type=Duration(),
    default="30s",
    show_default=True,
    help="So long after its holder has gone silent it is free again.",
)
_wait_option = click.option("--wait", "wait_s", type=Duration(), help="Give up after so long; by default, never.")


@click.group("lock", no_args_is_help=True)
def lock_group() -> None:
    """Hold locks, and see who holds them.

    \b
    Examples:
      isochrone lock run us/report --ttl 30s -- ./make-report --daily
      isochrone lock show us/report
    """


@lock_group.command("run")
@_ttl_option
@click.option(
    "--grace",
    "grace_s",
    type=Duration(),
    show_default="5s, or half of --ttl if that is less",
    help="A lost lock's command gets SIGTERM so long before the lock may be another's; at most half of --ttl.",
)
@_wait_option
@click.option("--try", "is_try", is_flag=True, help="Do not wait at all.")
@click.option("--shared", is_flag=True, help="Others may hold it shared at the same time.")
@click.option(
    "--delay", "delay_s", type=Duration(), default=None, help="Keep it closed for so long if its holder is lost."
)
@connection_options
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_lock_command(
    target: Target,
    name: str,
    command: Sequence[str],
    ttl_s: float,
    grace_s: float | None,
    wait_s: float | None,
    is_try: bool,
    shared: bool,
    delay_s: float | None,
) -> None:
    """Run COMMAND while the lock NAME is held, and release it then.

    If the lock cannot be renewed, COMMAND and what it started get SIGTERM at --grace before the lock may be given to
    another, and SIGKILL in time. Signals to this program go to COMMAND, and the lock is held until it has ended;
    Ctrl-Z stops COMMAND alone. While it waits for the lock this program says on standard error who has it.
    If this program itself is killed (SIGKILL), nobody stops COMMAND: then only the token keeps it from doing harm.

    In its environment COMMAND finds ISOCHRONE_LOCK_NAME, ISOCHRONE_LOCK_TOKEN (a number that rises with every holder:
    give it with each write to what the lock protects, which then can refuse a holder that is late), ISOCHRONE_REGION.

    Exit status: that of COMMAND, 128 + N if signal N ended it; 124 if the lock was not granted in time; 125 if it was
    lost, or the cluster cannot be asked; 126 or 127 if COMMAND cannot be started; 2 for bad input.

    \b
    Examples:
      isochrone lock run us/report -- ./make-report --daily
      isochrone lock run --try --ttl 10s --grace 2s us/report -- sh -c 'echo $ISOCHRONE_LOCK_TOKEN'
    """
    if is_try and wait_s is not None:
        raise InvalidRequest("--try does not wait, so it goes without --wait")
    if grace_s is not None and grace_s > ttl_s / 2:
        raise InvalidRequest(f"--grace is {in_words(grace_s)}; at most half of --ttl is allowed: {in_words(ttl_s / 2)}")
    diversion = Diversion()
    options = {
        "ttl_s": ttl_s,
        "grace_s": min(GRACE_S, ttl_s / 2) if grace_s is None else grace_s,
        "wait_s": 0.0 if is_try else wait_s or FOREVER,
        "mode": LockMode.S if shared else LockMode.X,
        "delay_s": delay_s or 0.0,
    }
    try:
        raise SystemExit(run_command(_hold(target, name, command, diversion, options), diversion))
    except LockHeld as error:
        _fail(f"{error}; `isochrone lock show {shown(name)}` tells who has it", NOT_GRANTED_STATUS)
    except LeaseLost as error:
        _fail(f"{error}; its command was stopped", LOST_STATUS)
    except CannotStart as error:
        _fail(str(error), error.exit_status)
    except InvalidRequest:
        raise
    except IsochroneError as error:
        _fail(str(error), LOST_STATUS)


def _fail(message: str, status: int) -> None:
    click.echo(f"isochrone: {message}", err=True)
    raise SystemExit(status)


async def _hold(
    target: Target, name: str, command: Sequence[str], diversion: Diversion, options: dict[str, Any]
) -> int:
    async with connected(target) as client, AsyncExitStack() as stack:
        lock: Lock = client.lock(name, value=this_process(), **options)
        await _enter(client, stack, lock, name)
        environment = {
            "ISOCHRONE_LOCK_NAME": name,
            "ISOCHRONE_LOCK_TOKEN": str(lock.token),
            "ISOCHRONE_REGION": target.region,
        }
        grace_s: float = options["grace_s"]
        return await run_child(command, environment, lambda: min(grace_s, lock.remaining_s), diversion, BootClock())


async def _enter(client: Client, stack: AsyncExitStack, held: Lock | Election, name: str) -> None:
    """Enter a lock or an election, and say who has it while that takes long."""

    async def describe() -> str:
        return waiting_line(shown(name), await _look(client, name))

    async with telling(describe):
        await stack.enter_async_context(held)


async def _look(client: Client, name: str) -> LockQueryResult:
    return expect(LockQueryResult, (await client.query(name, LockQuery(as_bytes(name)))).result)


@lock_group.command("show")
@click.argument("name")
@table_output_option
@connection_options
def show_command(target: Target, name: str, output: str) -> None:
    """Show who holds the lock NAME, and who waits for it. An election is a lock, too.

    \b
    Examples:
      isochrone lock show us/report
      isochrone lock show us/report -o json
    """

    async def ask() -> LockQueryResult:
        async with connected(target) as client:
            return await _look(client, name)

    found = run_command(ask())
    if output == "json":
        click.echo(json.dumps(lock_to_plain(shown(name), found)))
    else:
        print_parts(lock_parts(shown(name), found, time.time_ns()))


@lock_group.command("raise-epoch", short_help="Let later tokens exceed all earlier ones.")
@click.argument("prefix")
@click.option(
    "--above", type=click.IntRange(0, TOKEN_EPOCH_MAX - 1), default=0, help="The highest epoch that was ever seen."
)
@connection_options
def raise_epoch_command(target: Target, prefix: str, above: int) -> None:
    """Let later fencing tokens of the keyspace PREFIX exceed all that were given out before.

    To be done after the keyspace was restored from a copy, as that knows nothing of tokens given out since: resources
    would refuse whoever holds its locks from now on. A token's epoch is the token divided by 4294967296.

    \b
    Examples:
      isochrone lock raise-epoch us/
      isochrone lock raise-epoch us/ --above 7
    """

    async def ask() -> TokenEpochResult:
        async with connected(target) as client:
            operation = RaiseTokenEpoch(as_bytes(prefix), above)
            return expect(TokenEpochResult, (await client.execute(prefix, operation)).result)

    raised = run_command(ask())
    click.echo(f"tokens of {shown(prefix)} have epoch {raised.epoch} from now on; before, {raised.before}")


@click.command("elect")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--listen", is_flag=True, help="Do not run; print who leads, now and whenever it changes.")
@_ttl_option
@_wait_option
@output_option
@connection_options
def elect_command(
    target: Target, name: str, value: str | None, listen: bool, ttl_s: float, wait_s: float | None, output: str
) -> None:
    """Run for leader of the election NAME with VALUE, which everybody sees, and lead until a signal comes.

    Prints a line when it is elected; while it waits it says on standard error who leads. Exit status: 128 + the signal
    that ended it; 1 if the leadership was lost and may be another's soon, or was not had within --wait.

    \b
    Examples:
      isochrone elect us/scheduler 10.0.0.7:8080
      isochrone elect us/scheduler --listen
    """
    if (value is None) is not listen:
        raise InvalidRequest(f"an election takes a VALUE, or --listen: try `isochrone elect {name} --listen`")
    if listen:
        run_command(_observe(target, name, output))
    else:
        run_command(_lead(target, name, value or "", ttl_s, wait_s or FOREVER, output))


async def _observe(target: Target, name: str, output: str) -> None:
    async with connected(target) as client, aclosing(client.observe(name)) as leaders:
        async for leader in leaders:
            click.echo(_leader_line(leader, output))


async def _lead(target: Target, name: str, value: str, ttl_s: float, wait_s: float, output: str) -> None:
    async with connected(target) as client, AsyncExitStack() as stack:
        leadership = client.election(name, value, ttl_s=ttl_s, wait_s=wait_s)
        await _enter(client, stack, leadership, name)
        plain = {"name": shown(name), "value": shown(value), "token": leadership.token}
        line = f"{shown(name)} is led by {shown(value)} with token {leadership.token}"
        click.echo(json.dumps(plain) if output == "json" else line)
        if output != "json":
            say("leading until a signal ends it")
        await leadership.lease.lost.wait()


def _leader_line(leader: Leader | None, output: str) -> str:
    if output == "json":
        plain = leader and {"value": text(leader.value), "elected_revision": leader.elected_revision}
        return json.dumps({"leader": plain})
    return text(leader.value) if leader else "(nobody leads)"
