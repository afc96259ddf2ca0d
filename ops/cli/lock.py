"""`isochrone lock` and `elect`: work that only one at a time may do."""

import json
from collections.abc import Sequence
from contextlib import aclosing

import click

from isochrone.client import Leader
from isochrone.errors import InvalidRequest, LeaseLost
from isochrone.ops.cli.child_os import run_child
from isochrone.ops.cli.connection import Target, connected, connection_options, output_option
from isochrone.ops.cli.durations import Duration
from isochrone.ops.cli.kv_view import text
from isochrone.ops.cli.signals_os import run_command

_ttl_option = click.option(
    "--ttl",
    "ttl_s",
    type=Duration(),
    default=30.0,
    show_default="30s",
    help="So long after its holder has gone silent it is free again.",
)
_wait_option = click.option("--wait", "wait_s", type=Duration(), help="Give up after so long; by default, never.")


@click.group("lock", no_args_is_help=True)
def lock_group() -> None:
    """Hold locks.

    \b
    Example:
      isochrone lock run us/report --ttl 30s -- ./make-report --daily
    """


@lock_group.command("run")
@_ttl_option
@click.option(
    "--grace",
    "grace_s",
    type=Duration(),
    default=5.0,
    show_default="5s",
    help="A lost lock's command gets SIGTERM so long before the lock may be another's; at most half of --ttl.",
)
@_wait_option
@click.option("--try", "is_try", is_flag=True, help="Do not wait at all.")
@connection_options
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_lock_command(
    target: Target, name: str, command: Sequence[str], ttl_s: float, grace_s: float, wait_s: float | None, is_try: bool
) -> None:
    """Run COMMAND while the lock NAME is held, and release it then.

    If the lock cannot be renewed, COMMAND and what it started get SIGTERM at --grace before the lock may be given to
    another, and SIGKILL in time; the exit status is 1 then. Else it is COMMAND's.

    In its environment COMMAND finds ISOCHRONE_LOCK_NAME, ISOCHRONE_LOCK_TOKEN (a number that rises with every holder:
    give it with each write to what the lock protects, which then can refuse a holder that is late), ISOCHRONE_REGION.

    \b
    Examples:
      isochrone lock run us/report -- ./make-report --daily
      isochrone lock run --try --ttl 10s --grace 2s us/report -- sh -c 'echo $ISOCHRONE_LOCK_TOKEN'
    """
    if is_try and wait_s is not None:
        raise InvalidRequest("--try does not wait, so it goes without --wait")

    async def hold() -> int:
        wait = 0.0 if is_try else wait_s
        async with connected(target) as client, client.lock(name, ttl_s=ttl_s, grace_s=grace_s, wait_s=wait) as lock:
            environment = {
                "ISOCHRONE_LOCK_NAME": name,
                "ISOCHRONE_LOCK_TOKEN": str(lock.token),
                "ISOCHRONE_REGION": target.region,
            }
            return await run_child(command, environment, lambda: min(grace_s, lock.remaining_s))

    try:
        status = run_command(hold())
    except LeaseLost as error:
        raise LeaseLost(f"the lock {name} was lost and its command was stopped: {error}") from error
    raise SystemExit(status)


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

    Prints a line when it is elected. Exit status 1: the leadership was lost, and may be another's soon.

    \b
    Examples:
      isochrone elect us/scheduler 10.0.0.7:8080
      isochrone elect us/scheduler --listen
    """
    if (value is None) is not listen:
        raise InvalidRequest("an election takes a VALUE, or --listen")

    async def observe() -> None:
        async with connected(target) as client, aclosing(client.observe(name)) as leaders:
            async for leader in leaders:
                click.echo(_leader_line(leader, output))

    async def lead() -> None:
        async with (
            connected(target) as client,
            client.election(name, value or "", ttl_s=ttl_s, wait_s=wait_s) as leadership,
        ):
            plain = {"name": name, "value": value, "token": leadership.token}
            line = f"{name} is led by {value} with token {leadership.token}"
            click.echo(json.dumps(plain) if output == "json" else line)
            await leadership.lease.lost.wait()

    run_command(observe() if listen else lead())


def _leader_line(leader: Leader | None, output: str) -> str:
    if output == "json":
        plain = leader and {"value": text(leader.value), "elected_revision": leader.elected_revision}
        return json.dumps({"leader": plain})
    return text(leader.value) if leader else "(nobody leads)"
