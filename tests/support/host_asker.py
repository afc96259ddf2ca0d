"""Asks the hosts of a `HostCluster` what no client of the SDK asks."""

import asyncio

from host_cluster import GROUP, KEYSPACE, HostCluster

from isochrone.ids import NS_PER_S, Nanos, NodeId
from isochrone.regions.host import Host
from isochrone.regions.requests import Outcome, alone
from isochrone.wire.commands import Command, Operation, Query, Result, decode_result, encode_command, encode_query
from isochrone.wire.kv import Range, RangeResult


class Asker:
    """Asks whoever leads, once, outside any session."""

    def __init__(self, cluster: HostCluster) -> None:
        self.cluster = cluster

    def host(self, name: str | None = None) -> Host:
        leader = name or self.cluster.leader()
        assert leader is not None
        host = self.cluster.processes[NodeId(leader)].host
        assert host is not None
        return host

    def write(self, operation: Operation) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        command = encode_command(Command(0, 0, 0, operation))
        self.host().write(GROUP, KEYSPACE, (command,), b"", Nanos(5 * NS_PER_S), alone(answer.set_result))
        return answer

    def read(self, query: Query, name: str | None = None) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.host(name).read(GROUP, KEYSPACE, encode_query(query), answer.set_result)
        return answer

    async def get(self, query: Query) -> Result:
        outcome = await self.read(query)
        if outcome.error is not None:
            raise outcome.error
        return decode_result(outcome.payload)

    async def value(self, key: bytes) -> bytes | None:
        found = await self.get(Range(key))
        assert isinstance(found, RangeResult)
        return found.items[0].value if found.items else None
