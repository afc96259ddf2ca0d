"""Asks one group for an endpoint of etcd's API, from wherever this node stands.

The leader is asked directly, in this process. A node that does not lead passes the question on through a client of its
own, as etcd's followers do; so does a leader that loses its office before it has taken the question. The client opens
when it is first needed.

A question of unknown outcome is never asked again here: what the client repeats has a session that makes it take effect
once, and the leader in this process is asked once.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import final

from isochrone.client.client import Client
from isochrone.errors import InvalidRequest, IsochroneError, NotLeader, Unavailable
from isochrone.ids import NS_PER_S, GroupId, KeyspaceId, Nanos, NodeId, Revision
from isochrone.regions.host import Host
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Outcome, alone
from isochrone.wire.commands import (
    COMMAND_BYTES_MAX,
    Command,
    Operation,
    Query,
    Result,
    check_operation,
    check_query,
    decode_result,
    encode_command,
    encode_query,
    encode_result,
)
from isochrone.wire.kv import ALL, Range, prefix_end, value_bytes
from isochrone.wire.leases import LeaseKeepAlive, LeaseList, LeaseTimeToLive
from isochrone.wire.locks import LockQuery, LockWait

UNDER_WAY_MAX = 10_000
"""Most questions that are passed on at a time; beyond, they are refused."""
UNDER_WAY_BYTES_MAX = 64 << 20
"""From so many bytes of values in them on, they are refused as well."""
Told = Callable[[Result | IsochroneError], None]
_QUERIES = (Range, LeaseKeepAlive, LeaseTimeToLive, LeaseList, LockWait, LockQuery)


@final
class GroupAccess:
    """See the module. `close` it before the host stops."""

    def __init__(
        self,
        host: Host,
        node: NodeId,
        group: GroupId,
        keyspaces: Sequence[tuple[bytes, KeyspaceId]],
        connect: Callable[[], Awaitable[Client]],
    ) -> None:
        """Serve these keyspaces (prefix and id) of `group`, at least one. `connect` opens the client."""
        self.host = host
        self.node = node
        self.group = group
        self._keyspaces = tuple(sorted(keyspaces))
        self._prefixes = tuple([prefix for prefix, _ in self._keyspaces])
        self._connect = connect
        self._client: asyncio.Task[Client] | None = None
        self._tasks: dict[asyncio.Task[None], int] = {}
        """Questions that are passed on, with the bytes of values in each."""
        self._under_way_bytes = 0
        self._closed = False
        self.refusals: Counter[str] = Counter()
        """Questions that were answered with an error, by its class."""

    @property
    def replica(self) -> Replica | None:
        """The group's replica at this node."""
        return self.host.replicas.get(self.group)

    @property
    def revision(self) -> Revision:
        """The group's revision as applied here; 0 where it has no replica."""
        replica = self.replica
        return Revision(0) if replica is None else replica.revision

    @property
    def term(self) -> int:
        """The group's term as known here; 0 where it has no replica."""
        replica = self.replica
        return 0 if replica is None else replica.core.term

    @property
    def first_key(self) -> bytes:
        """The first key that the group may have."""
        return self._keyspaces[0][0]

    def serves(self, key: bytes, range_end: bytes) -> bool:
        """Whether a key, or some key that a range may hold, belongs to the group."""
        if not range_end:
            return key.startswith(self._prefixes)
        return any(
            (range_end == ALL or prefix < range_end) and (prefix_end(prefix) == ALL or key < prefix_end(prefix))
            for prefix, _ in self._keyspaces
        )

    def outside(self, key: bytes, range_end: bytes) -> str | None:
        """Why a key or a range is not served, in words; None if it is."""
        if self.serves(key, range_end):
            return None
        what = f"key {_shown(key)} lies" if not range_end else f"all from {_shown(key)} to {_shown(range_end)} lies"
        prefixes = ", ".join(_shown(prefix) for prefix, _ in self._keyspaces)
        return f"{what} outside group {self.group}, for which this endpoint speaks; its keys begin with {prefixes}"

    def ask(self, key: bytes, question: Operation | Query, timeout_s: float, told: Told) -> None:
        """Put a question to the group's leader; `told` is called once, perhaps at once.

        `key` names the keyspace that it goes through; one of no keyspace of the group stands for the first.
        A `Range` is a query here, linearizable.
        """
        try:
            if isinstance(question, _QUERIES):
                check_query(question)
            else:
                check_operation(question)
        except InvalidRequest as error:
            self.refuse(told, error)
            return
        prefix, keyspace = self.part_of(key)
        pass_on = partial(self.pass_on, prefix, question, timeout_s, told)
        if not self.leads:
            pass_on()
            return
        done = partial(self._tell, told, pass_on)
        if isinstance(question, _QUERIES):
            self.host.read(self.group, keyspace, encode_query(question), done)
            return
        command = encode_command(Command(0, 0, 0, question))
        if len(command) > COMMAND_BYTES_MAX:
            text = f"command has {len(command)} bytes; at most {COMMAND_BYTES_MAX} are allowed"
            self.refuse(told, InvalidRequest(text))
            return
        self.host.write(self.group, keyspace, (command,), b"", Nanos(round(timeout_s * NS_PER_S)), alone(done))

    @property
    def leads(self) -> bool:
        """Whether this node leads the group."""
        replica = self.replica
        return replica is not None and replica.known_leader() == self.node

    def part_of(self, key: bytes) -> tuple[bytes, KeyspaceId]:
        """Prefix and keyspace of a key; one of no keyspace of the group stands for the first."""
        for part in self._keyspaces:
            if key.startswith(part[0]):
                return part
        return self._keyspaces[0]

    def ask_here(self, key: bytes, query: Range, timeout_s: float, told: Told) -> None:
        """Answer from what is applied here, be it behind; a node without a replica asks the leader."""
        if self.replica is None:
            self.ask(key, query, timeout_s, told)
            return
        _, keyspace = self.part_of(key)
        try:
            check_query(query)
            (outcome,) = self.host.read_applied(self.group, keyspace, (query,))
        except InvalidRequest as error:
            self.refuse(told, error)
            return
        if isinstance(outcome, IsochroneError):
            self.refuse(told, outcome)
        else:
            told(decode_result(encode_result(outcome)))

    def pass_on(self, prefix: bytes, question: Operation | Query, timeout_s: float, told: Told) -> None:
        """Ask the leader, which is another node; `told` is called once."""
        full = len(self._tasks) >= UNDER_WAY_MAX or self._under_way_bytes >= UNDER_WAY_BYTES_MAX
        if self._closed or full:
            text = "the node is stopping" if self._closed else "too much is passed on to the leader already"
            self.refuse(told, Unavailable(text))
            return
        work = self._ask_leader(prefix, question, timeout_s, told)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = value_bytes(question)
        self._under_way_bytes += self._tasks[task]
        task.add_done_callback(self._passed_on)

    def _passed_on(self, task: asyncio.Task[None]) -> None:
        self._under_way_bytes -= self._tasks.pop(task)

    async def _ask_leader(self, prefix: bytes, question: Operation | Query, timeout_s: float, told: Told) -> None:
        try:
            if self._client is None or (self._client.done() and self._client.exception() is not None):
                self._client = asyncio.ensure_future(self._connect())
            client = await asyncio.shield(self._client)
            if isinstance(question, _QUERIES):
                result = (await client.query(prefix, question, timeout_s=timeout_s)).result
            else:
                result = (await client.execute(prefix, question, timeout_s=timeout_s)).result
        except IsochroneError as error:
            self.refuse(told, error)
        else:
            told(result)

    def _tell(self, told: Told, pass_on: Callable[[], None], outcome: Outcome) -> None:
        match outcome.error:
            case None:
                told(decode_result(outcome.payload))
            case NotLeader():
                pass_on()
            case error:
                self.refuse(told, error)

    def refuse(self, told: Callable[[IsochroneError], None], error: IsochroneError) -> None:
        """Answer a question with an error."""
        self.refusals[type(error).__name__] += 1
        told(error)

    async def close(self) -> None:
        """End what is under way. Whoever waits for the client to open is not told any more."""
        self._closed = True
        if self._client is not None:
            self._client.cancel()  # without effect on one that is open
            opened = await asyncio.gather(self._client, return_exceptions=True)
            for client in opened:
                if isinstance(client, Client):
                    await client.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _shown(key: bytes) -> str:
    return repr(key[:64])[1:]
