"""`isochrone watch`: what is written, as it is written."""

import json

import click

from isochrone.ops.cli.connection import Target, connected, connection_options, output_option
from isochrone.ops.cli.kv_view import told_lines, told_to_plain
from isochrone.ops.cli.signals_os import run_command


@click.command("watch")
@click.argument("key")
@click.argument("range_end", required=False, default="")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--rev", "revision", type=click.IntRange(min=0), default=0, help="From this revision on; 0: from now on.")
@click.option("--prev-kv", is_flag=True, help="Show what was there before.")
@output_option
@connection_options
def watch_command(
    target: Target, key: str, range_end: str, prefix: bool, revision: int, prev_kv: bool, output: str
) -> None:
    """Print every change of KEY, of the keys from KEY up to RANGE_END, or with --prefix of all that begin with KEY.

    It asks the nearest replica, goes on at another one if need be, leaves nothing out and tells nothing twice. Where
    the next changes are compacted it prints GAP, a revision, and the keys as they were then. It ends by a signal.

    \b
    Examples:
      isochrone watch us/orders/ --prefix
      isochrone watch us/orders/1 --rev 120 -o json
    """

    async def watch() -> None:
        async with (
            connected(target) as client,
            client.watch(key, range_end=range_end, prefix=prefix, start_revision=revision, prev_kv=prev_kv) as watcher,
        ):
            async for told in watcher:
                lines = [json.dumps(told_to_plain(told))] if output == "json" else told_lines(told)
                for line in lines:
                    click.echo(line)

    run_command(watch())
