"""`isochrone lease`: leases by their ids."""

import json
from contextlib import aclosing

import click

from isochrone.errors import LeaseNotFound
from isochrone.ops.cli.connection import (
    Target,
    connected,
    connection_options,
    key_for_group,
    keyspace_option,
    output_option,
)
from isochrone.ops.cli.durations import Duration
from isochrone.ops.cli.kv_view import text
from isochrone.ops.cli.signals_os import run_command
from isochrone.ops.cli.tables import make_table, print_parts
from isochrone.wire.leases import LeaseGrantResult, LeaseTimeToLiveResult

_lease_argument = click.argument("lease", type=click.IntRange(min=1))


@click.group("lease", no_args_is_help=True)
def lease_group() -> None:
    """Make, renew, show and end leases. Keys and locks that hang on a lease go when it ends.

    \b
    Examples:
      isochrone lease grant 60s
      isochrone lease keep-alive 7587
      isochrone lease timetolive 7587 --keys
    """


@lease_group.command("grant", short_help="Make a lease.")
@click.argument("ttl_s", metavar="TTL", type=Duration())
@keyspace_option
@output_option
@connection_options
def grant_command(target: Target, ttl_s: float, keyspace: str | None, output: str) -> None:
    """Make a lease that lives for TTL (such as 60s) unless it is renewed. It lives for a second at least.

    \b
    Examples:
      isochrone lease grant 60s
      isochrone lease grant 60s --keyspace us/ -o json | jq .lease
    """

    async def grant() -> LeaseGrantResult:
        async with connected(target) as client:
            return await client.leases.grant(key_for_group(client, keyspace), ttl_s)

    made = run_command(grant())
    if output == "json":
        click.echo(json.dumps({"lease": made.lease, "ttl_ms": made.ttl_ms, "revision": made.revision}))
    else:
        click.echo(f"lease {made.lease} granted with TTL({made.ttl_ms / 1000:g}s)")


@lease_group.command("revoke")
@_lease_argument
@keyspace_option
@connection_options
def revoke_command(target: Target, lease: int, keyspace: str | None) -> None:
    """End LEASE now, with its keys and locks.

    \b
    Example:
      isochrone lease revoke 7587
    """

    async def revoke() -> None:
        async with connected(target) as client:
            await client.leases.revoke(key_for_group(client, keyspace), lease)

    run_command(revoke())
    click.echo(f"lease {lease} revoked")


@lease_group.command("keep-alive", short_help="Renew a lease until a signal comes.")
@_lease_argument
@click.option("--once", is_flag=True, help="Renew it once and return.")
@keyspace_option
@connection_options
def keep_alive_command(target: Target, lease: int, once: bool, keyspace: str | None) -> None:
    """Renew LEASE at each third of its time to live, until a signal comes or it has ended (exit status 1).

    \b
    Examples:
      isochrone lease keep-alive 7587
      isochrone lease keep-alive 7587 --once
    """

    async def keep_alive() -> None:
        async with connected(target) as client:
            key = key_for_group(client, keyspace)
            async with aclosing(client.leases.keep_alive(key, lease)) as renewals:
                async for renewed in renewals:
                    click.echo(f"lease {lease} keepalived with TTL({renewed.ttl_ms / 1000:g}s)")
                    if once:
                        return

    try:
        run_command(keep_alive())
    except LeaseNotFound:
        click.echo(f"lease {lease} expired or revoked.", err=True)
        raise SystemExit(1) from None


@lease_group.command("timetolive")
@_lease_argument
@click.option("--keys", is_flag=True, help="Show the keys that hang on it.")
@keyspace_option
@output_option
@connection_options
def time_to_live_command(target: Target, lease: int, keys: bool, keyspace: str | None, output: str) -> None:
    """Show how much time LEASE has left.

    \b
    Examples:
      isochrone lease timetolive 7587
      isochrone lease timetolive 7587 --keys
    """

    async def ask() -> LeaseTimeToLiveResult:
        async with connected(target) as client:
            return await client.leases.time_to_live(key_for_group(client, keyspace), lease, keys=keys)

    found = run_command(ask())
    if output == "json":
        click.echo(json.dumps(_to_plain(found)))
    elif found.remaining_ms < 0:
        click.echo(f"lease {lease} already expired")
    else:
        told = f"lease {lease} granted with TTL({found.ttl_ms / 1000:g}s), remaining({found.remaining_ms / 1000:g}s)"
        attached = f", attached keys([{' '.join(map(text, found.keys))}])" if keys else ""
        click.echo(told + attached)


@lease_group.command("list")
@click.option("--long", "is_long", is_flag=True, help="Show the time and the keys of each; one question for each.")
@keyspace_option
@output_option
@connection_options
def list_command(target: Target, is_long: bool, keyspace: str | None, output: str) -> None:
    """Show the ids of all leases.

    \b
    Examples:
      isochrone lease list
      isochrone lease list --long
    """
    if is_long:
        _list_long(target, keyspace, output)
        return

    async def ask() -> tuple[int, ...]:
        async with connected(target) as client:
            return await client.leases.list(key_for_group(client, keyspace))

    leases = run_command(ask())
    click.echo(json.dumps({"leases": leases}) if output == "json" else f"found {len(leases)} leases")
    if output != "json":
        for lease in leases:
            click.echo(lease)


def _to_plain(found: LeaseTimeToLiveResult) -> dict[str, object]:
    plain = {"lease": found.lease, "ttl_ms": found.ttl_ms, "remaining_ms": found.remaining_ms}
    return {**plain, "keys": [text(key) for key in found.keys]}


def _list_long(target: Target, keyspace: str | None, output: str) -> None:
    async def ask() -> list[LeaseTimeToLiveResult]:
        async with connected(target) as client:
            key = key_for_group(client, keyspace)
            leases = await client.leases.list(key)
            found = [await client.leases.time_to_live(key, lease, keys=True) for lease in leases]
        return [each for each in found if each.remaining_ms >= 0]  # Others have ended meanwhile.

    found = run_command(ask())
    if output == "json":
        click.echo(json.dumps({"leases": [_to_plain(each) for each in found]}))
        return
    table = make_table(("lease", "ttl s", "left s", "keys"))
    for each in found:
        keys = " ".join(map(text, each.keys[:5])) + (f" and {len(each.keys) - 5} more" if len(each.keys) > 5 else "")
        table.add_row(str(each.lease), f"{each.ttl_ms / 1000:g}", f"{each.remaining_ms / 1000:.1f}", keys or "-")
    print_parts([table])
