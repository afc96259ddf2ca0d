"""`isochrone kv`: keys and values."""

import json
import sys

import click

from isochrone.client import Provenance, StaleRange
from isochrone.client.answers import as_bytes
from isochrone.errors import InvalidRequest
from isochrone.ops.cli.connection import (
    Target,
    connected,
    connection_options,
    key_for_group,
    keyspace_option,
    output_option,
)
from isochrone.ops.cli.durations import in_words
from isochrone.ops.cli.input_os import read_input
from isochrone.ops.cli.kv_view import items_table, result_lines, result_to_plain
from isochrone.ops.cli.progress_os import say
from isochrone.ops.cli.signals_os import run_command
from isochrone.ops.cli.tables import print_parts
from isochrone.ops.cli.txn_text import parse_txn
from isochrone.wire.kv import IncrementResult, KvResult, PutResult, RangeResult

_prefix_option = click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
_prev_kv_option = click.option("--prev-kv", is_flag=True, help="Show what was there before.")


def _print(result: KvResult, output: str) -> None:
    lines = [json.dumps(result_to_plain(result))] if output == "json" else result_lines(result)
    for line in lines:
        click.echo(line)


@click.group("kv", no_args_is_help=True)
def kv_group() -> None:
    """Read and write keys. Every call but get --stale is linearizable and has a deadline (--timeout).

    Exit status: 0 done, 1 failed (the text says whether a write may have been applied), 2 bad input.

    \b
    Examples:
      isochrone kv put us/orders/1 new
      isochrone kv get us/orders/ --prefix -o table
      isochrone kv del us/orders/1
    """


@kv_group.command("get", short_help="Show a key, a range of keys, or all with a prefix.")
@click.argument("key")
@click.argument("range_end", required=False, default="")
@_prefix_option
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Most keys shown; 0 for all.")
@click.option("--rev", "revision", type=click.IntRange(min=0), default=0, help="As of this revision; 0 for now.")
@click.option("--keys-only", is_flag=True, help="Leave values out.")
@click.option("--stale", is_flag=True, help="What the nearest replica has applied will do, even if it is old.")
@click.option("--print-value-only", is_flag=True, help="Leave keys out.")
@click.option("-o", "--output", type=click.Choice(["simple", "table", "json"]), default="simple", show_default=True)
@connection_options
def get_command(
    target: Target,
    key: str,
    range_end: str,
    prefix: bool,
    limit: int,
    revision: int,
    keys_only: bool,
    stale: bool,
    print_value_only: bool,
    output: str,
) -> None:
    """Show KEY, the keys from KEY up to RANGE_END, or with --prefix all that begin with KEY.

    An absent key shows nothing, with exit status 0. With --stale, standard error (with -o json, the output) tells which
    replica has answered and how old its state may be.

    \b
    Examples:
      isochrone kv get us/orders/1 --print-value-only
      isochrone kv get us/orders/ --prefix --rev 120
    """

    async def get() -> RangeResult | StaleRange:
        async with connected(target) as client:
            if not stale:
                return await client.kv.range(
                    key, range_end=range_end, prefix=prefix, limit=limit, revision=revision, keys_only=keys_only
                )
            return await client.kv.range_nearest(
                key, range_end=range_end, prefix=prefix, limit=limit, revision=revision, keys_only=keys_only
            )

    answer = run_command(get())
    found = answer.found if isinstance(answer, StaleRange) else answer
    if output == "json":
        click.echo(json.dumps(result_to_plain(found) | _origin(answer)))
        return
    if isinstance(answer, StaleRange):
        age = "of unknown age" if answer.age_s is None else f"at most {in_words(answer.age_s)} old"
        say(f"from {answer.replica}, {age}")
    if output == "table":
        print_parts([items_table(found.items, keys_only)])
    elif print_value_only:
        for item in found.items:
            sys.stdout.buffer.write(item.value + b"\n")
        sys.stdout.buffer.flush()
    elif keys_only:
        for item in found.items:
            click.echo(item.key.decode(errors="backslashreplace"))
    else:
        _print(found, output)


def _origin(answer: RangeResult | StaleRange) -> dict[str, str | float | None]:
    if isinstance(answer, StaleRange):
        return {"provenance": str(answer.provenance), "replica": answer.replica, "age_s": answer.age_s}
    return {"provenance": str(Provenance.LINEARIZABLE)}


@kv_group.command("put", short_help="Set a key.")
@click.argument("key")
@click.argument("value", required=False)
@click.option("--lease", type=int, default=0, help="The key goes when this lease ends.")
@_prev_kv_option
@output_option
@connection_options
def put_command(target: Target, key: str, value: str | None, lease: int, prev_kv: bool, output: str) -> None:
    """Set KEY to VALUE, or to what is read from standard input.

    \b
    Examples:
      isochrone kv put us/orders/1 new
      isochrone kv put us/config < config.yaml
    """
    data = read_input("the value") if value is None else as_bytes(value)

    async def put() -> PutResult:
        async with connected(target) as client:
            return await client.kv.put(key, data, lease=lease, prev_kv=prev_kv)

    _print(run_command(put()), output)


@kv_group.command("del", short_help="Remove a key, a range of keys, or all with a prefix.")
@click.argument("key")
@click.argument("range_end", required=False, default="")
@_prefix_option
@_prev_kv_option
@output_option
@connection_options
def del_command(target: Target, key: str, range_end: str, prefix: bool, prev_kv: bool, output: str) -> None:
    """Remove KEY, the keys from KEY up to RANGE_END, or with --prefix all that begin with KEY.

    Shows how many there were.

    \b
    Examples:
      isochrone kv del us/orders/1
      isochrone kv del us/orders/ --prefix
    """

    async def delete() -> KvResult:
        async with connected(target) as client:
            return await client.kv.delete(key, range_end=range_end, prefix=prefix, prev_kv=prev_kv)

    _print(run_command(delete()), output)


@kv_group.command("incr", short_help="Add to the number that a key holds.")
@click.argument("key")
@click.argument("delta", type=int, default=1)
@output_option
@connection_options
def incr_command(target: Target, key: str, delta: int, output: str) -> None:
    """Add DELTA (1 if not given) to the decimal number that KEY holds, and show the sum. An absent key counts as 0.

    \b
    Examples:
      isochrone kv incr us/visits
      isochrone kv incr us/stock -- -3
    """

    async def increment() -> IncrementResult:
        async with connected(target) as client:
            return await client.kv.increment(key, delta)

    _print(run_command(increment()), output)


@kv_group.command("compact", short_help="Forget history.")
@click.argument("revision", type=click.IntRange(min=1))
@keyspace_option
@connection_options
def compact_command(target: Target, revision: int, keyspace: str | None) -> None:
    """Forget what is superseded at REVISION, in all keyspaces of the group.

    Reads and watches from before REVISION are refused from then on.

    \b
    Example:
      isochrone kv compact 4711 --keyspace us/
    """

    async def compact() -> None:
        async with connected(target) as client:
            await client.kv.compact(key_for_group(client, keyspace), revision)

    run_command(compact())
    click.echo(f"compacted revision {revision}")


@kv_group.command("txn", short_help="Execute a transaction that is read from standard input.")
@output_option
@connection_options
def txn_command(target: Target, output: str) -> None:
    """Execute a transaction, read from standard input as etcdctl reads it: compares, a blank line, what to do if all
    hold, a blank line, what to do else.

    Compares: version, create, mod, value, lease, token or lock of a key, against a quoted value.
    Requests: put KEY VALUE, get [--prefix] KEY, del [--prefix] KEY, incr KEY NUMBER.

    \b
    Example:
      isochrone kv txn <<END
      version("us/orders/1") = "0"
    \b
      put us/orders/1 new
    \b
      get us/orders/1
      END
    """
    try:
        txn = parse_txn(read_input("the transaction").decode())
    except UnicodeDecodeError:
        raise InvalidRequest("the transaction is not UTF-8 text") from None

    async def run() -> KvResult:
        async with connected(target) as client:
            return await client.kv.txn(txn.compares, txn.success, txn.failure)

    _print(run_command(run()), output)
