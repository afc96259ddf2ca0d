"""Puts and reads of single keys at an endpoint of etcd's API: those of one turn of the loop are asked together.

Together they cost the group's leader one proposal, one confirmation that it leads, one callback, whatever their number;
and their results come back as they are, not as objects, to be turned into etcd's bytes. A node that does not lead
passes each on, as `GroupAccess` does with all questions.

A driver without tasks of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast, final

from isochrone.errors import InvalidRequest, IsochroneError, NotLeader
from isochrone.ids import NS_PER_S, KeyspaceId, Nanos, Revision
from isochrone.node.etcd_group import GroupAccess, Told
from isochrone.probes import probe
from isochrone.regions.requests import BATCH_COMMANDS_MAX
from isochrone.wire.commands import (
    COMMAND_BYTES_MAX,
    Command,
    check_operation,
    check_query,
    encode_command,
    unpack_result,
)
from isochrone.wire.kv import PackedResult, Put, Range

ToldPacked = Callable[[PackedResult | IsochroneError], None]


class _Asked(NamedTuple):
    """One question, and who is told: the result as it is, or, where another node was asked, as an object."""

    question: Put | Range
    timeout_s: float
    packed: ToldPacked
    told: Told
    command: bytes


_Together = dict[tuple[KeyspaceId, float], list[_Asked]]
"""By keyspace and time given."""


@final
class Gathering:
    """See the module."""

    def __init__(self, access: GroupAccess) -> None:
        self._access = access
        self._reads: _Together = {}
        self._puts: _Together = {}
        self._planned = False

    def read(self, query: Range, timeout_s: float, packed: ToldPacked, told: Told) -> None:
        """Read one key, linearizably. One of both is called once."""
        try:
            check_query(query)
        except InvalidRequest as error:
            self._access.refuse(packed, error)
            return
        self._add(self._reads, _Asked(query, timeout_s, packed, told, b""))

    def read_here(self, query: Range) -> PackedResult | IsochroneError:
        """Read one key from what is applied here, be it behind. Raises `IsochroneError` where there is no state."""
        _, keyspace = self._access.part_of(query.key)
        (outcome,) = self._access.host.read_applied(self._access.group, keyspace, (query,))
        return outcome

    def put(self, put: Put, timeout_s: float, packed: ToldPacked, told: Told) -> None:
        """Set one key. One of both is called once."""
        try:
            check_operation(put)
            command = encode_command(Command(0, 0, 0, put))
            if len(command) > COMMAND_BYTES_MAX:
                raise InvalidRequest(f"command has {len(command)} bytes; at most {COMMAND_BYTES_MAX} are allowed")
        except InvalidRequest as error:
            self._access.refuse(packed, error)
            return
        self._add(self._puts, _Asked(put, timeout_s, packed, told, command))

    def _add(self, together: _Together, asked: _Asked) -> None:
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._ask)
        _, keyspace = self._access.part_of(asked.question.key)
        together.setdefault((keyspace, asked.timeout_s), []).append(asked)

    def _ask(self) -> None:
        self._planned = False
        reads, self._reads = self._reads, {}
        puts, self._puts = self._puts, {}
        if not self._access.leads:
            for asked in [asked for together in (puts, reads) for some in together.values() for asked in some]:
                self._pass_on(asked)
            return
        host, group = self._access.host, self._access.group
        for (keyspace, timeout_s), some in _pieces(puts):
            timeout_ns = Nanos(round(timeout_s * NS_PER_S))
            commands = [asked.command for asked in some]
            host.write(group, keyspace, commands, b"", timeout_ns, partial(self._written, some))
        for (keyspace, _), some in _pieces(reads):
            queries = [cast("Range", asked.question) for asked in some]
            host.read_all(group, keyspace, queries, partial(self._tell, some))

    def _written(self, asked: Sequence[_Asked], outcomes: Sequence[bytes | IsochroneError], revision: Revision) -> None:
        results = [outcome if isinstance(outcome, IsochroneError) else unpack_result(outcome) for outcome in outcomes]
        self._tell(asked, results, revision)

    def _tell(self, asked: Sequence[_Asked], outcomes: Sequence[PackedResult | IsochroneError], _: Revision) -> None:
        for each, outcome in zip(asked, outcomes, strict=False):
            if isinstance(outcome, NotLeader):
                self._pass_on(each)
            elif isinstance(outcome, IsochroneError):
                self._access.refuse(each.packed, outcome)
            else:
                each.packed(outcome)
        for each in asked[len(outcomes) :]:
            probe("etcd.reads_asked_again")
            self._add(self._reads, each)

    def _pass_on(self, asked: _Asked) -> None:
        prefix, _ = self._access.part_of(asked.question.key)
        self._access.pass_on(prefix, asked.question, asked.timeout_s, asked.told)


def _pieces(together: _Together) -> list[tuple[tuple[KeyspaceId, float], list[_Asked]]]:
    """No more at a time than an entry of the log may hold."""
    return [
        (key, some[at : at + BATCH_COMMANDS_MAX])
        for key, some in together.items()
        for at in range(0, len(some), BATCH_COMMANDS_MAX)
    ]
