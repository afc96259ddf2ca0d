"""How commands that use a cluster find it: options, and a client for as long as the command needs one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from isochrone.client import Client
from isochrone.client.answers import as_bytes
from isochrone.errors import InvalidRequest, Unavailable
from isochrone.node.clusters_os import find_cluster
from isochrone.ops.cli.durations import Duration

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """Where the cluster is, by the options of a command."""

    endpoints: tuple[str, ...]
    """Empty: those of the deployment in `directory`."""
    directory: Path
    region: str
    timeout_s: float


_OPTIONS = (
    click.option(
        "--endpoints",
        envvar="ISOCHRONE_ENDPOINTS",
        show_envvar=True,
        metavar="HOST:PORT,...",
        help="Some nodes of the cluster; the others are learned from them.",
    ),
    click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(".isochrone"),
        show_default=True,
        envvar="ISOCHRONE_DIR",
        show_envvar=True,
        help="A deployment on this machine, where no endpoints are given.",
    ),
    click.option(
        "--region", default="", envvar="ISOCHRONE_REGION", show_envvar=True, help="The region this command runs in."
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=Duration(),
        default="10s",
        show_default=True,
        envvar="ISOCHRONE_TIMEOUT",
        show_envvar=True,
        help="Deadline of each call, and of connecting.",
    ),
)


def connection_options(command: F) -> F:
    """Give a command the options of a connection; it gets them as its first argument, a `Target`."""

    @wraps(command)
    def with_target(
        *args: Any, endpoints: str | None, directory: Path, region: str, timeout_s: float, **rest: Any
    ) -> Any:
        named = tuple(each for each in (endpoints or "").split(",") if each)
        return command(Target(named, directory, region, timeout_s), *args, **rest)

    wrapped: Any = with_target
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Client]:
    """A client of the cluster. Raises `Unavailable` if no node answers in time."""
    endpoints = target.endpoints or _found(target.directory)
    async with await Client.connect(endpoints, region=target.region, timeout_s=target.timeout_s) as client:
        yield client


def _found(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(find_cluster(directory).addresses.values())
    except Unavailable as error:
        raise Unavailable(f"{error}; or name some nodes of another one with --endpoints") from error


def key_for_group(client: Client, keyspace: str | None) -> bytes:
    """A key by which a group is found: the keyspace named, or the only one there is.

    Raises:
        InvalidRequest: none is named, and there are several.
    """
    if keyspace is not None:
        return as_bytes(keyspace)
    prefixes = client.keyspace_prefixes()
    if len(prefixes) == 1:
        return prefixes[0]
    known = ", ".join(repr(prefix.decode(errors="backslashreplace")) for prefix in prefixes) or "none"
    raise InvalidRequest(f"name the keyspace with --keyspace; there are: {known}")


keyspace_option = click.option(
    "--keyspace", metavar="PREFIX", help="A keyspace of the group that is asked; needed if there are several."
)
table_output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["simple", "json"]), default="simple", show_default=True
)
