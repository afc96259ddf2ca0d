"""From a store to a running replica: what a host does for each group when it starts, for one that is added, and for a
peer that needs old entries.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import InvalidRequest, StorageError, Unavailable
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Nanos, ReplicaRole, Timestamp
from isochrone.ports import Row, Store, StoreIdentity
from isochrone.regions.office import DEFAULT_COMPACTION, CompactionRule
from isochrone.regions.raft.changes import all_members, keeps_state
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.replica import Replica
from isochrone.regions.requests import RegionLease
from isochrone.regions.state.machine import GroupState
from isochrone.regions.state.model import Handlers
from isochrone.wire.configurations import check_configuration
from isochrone.wire.messages import Configuration, Entry
from isochrone.wire.rows import decode_rows

_UNCUT = 1 << 62
"""Bytes: more than any log has. A replica needs the whole tail of its log in memory, whatever its size."""

_LOADED_BYTES = 1 << 20
"""Bytes of rows that are loaded at once while the node serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """What a host must know of a group besides what the store holds."""

    raft: RaftConfig
    keyspaces: tuple[KeyspaceId, ...]
    campaign_first: bool
    """This node campaigns at once while the group's log is still empty."""
    compaction: CompactionRule = DEFAULT_COMPACTION


@final
class Loader:
    """Makes the replicas and state machines of one host."""

    def __init__(
        self,
        store: Store,
        settings: Mapping[GroupId, GroupSettings],
        handlers: Handlers,
        hlc: HybridLogicalClock,
        rng: random.Random,
        monotonic: Callable[[], Nanos],
        region_lease: RegionLease,
    ) -> None:
        """`hlc` is the host's clock, brought forward by what is loaded."""
        self._store = store
        self._settings = settings
        self._handlers = handlers
        self._hlc = hlc
        self._rng = rng
        self._monotonic = monotonic
        self._region_lease = region_lease
        self._in_the_making: dict[GroupId, None] = {}

    def new_machine(self, group: GroupId) -> GroupState:
        """An empty state machine."""
        return GroupState(group, self._settings[group].keyspaces, self._handlers)

    async def create(self, group: GroupId, configuration: Configuration) -> Replica:
        """Make an empty replica of a group, durably. Raises `StorageError`, or `Unavailable` while it is being made."""
        if group in self._in_the_making:
            raise Unavailable(f"a replica of group {group} is being made already")
        self._in_the_making[group] = None
        try:
            await self._store.create_group(group, configuration)
            return await self.load(group)
        finally:
            del self._in_the_making[group]

    async def load(self, group: GroupId) -> Replica:
        """The replica of a group as the store holds it. One that was removed loads, too, and stays quiet.

        Raises:
            StorageError: the store cannot be read, its node is a member with another store, or the topology does not
                know the group.
        """
        settings = self._settings.get(group)
        if settings is None:
            raise StorageError(f"the store holds group {group}, which the topology does not know")
        store, node = self._store, self._store.identity.node
        stored = await store.load(group)
        # While it catches up, entries may name the store that the node had before; the one it was made with does not.
        member = all_members(stored.configuration).get(node)
        if stored.truncated_index == 0 and member is not None and member.store != store.identity.store:
            raise StorageError(
                f"the store {store.identity.store} of node {node} is not a replica of group {group}; "
                "it must rejoin as a learner: see isochrone bootstrap --replace"
            )
        keeps = keeps_state(stored, node)
        base = stored.applied if keeps else max(stored.hard_state.commit, stored.truncated_index)
        first = LogIndex(min(base + 1, stored.last_index))
        tail: tuple[Entry, ...] = ()
        if stored.last_index > stored.truncated_index:
            tail = await store.read_entries(group, first, stored.last_index, _UNCUT)
        machine = None
        if keeps:
            machine = self.new_machine(group)
            machine.restore(await store.read_rows(group))
        self._hlc.restore(max(stored.base_timestamp, tail[-1].last_timestamp if tail else Timestamp(0)))
        core = RaftNode(settings.raft, stored, tail, store=store.identity.store, rng=self._rng, now=self._monotonic())
        return Replica(group, core, machine, self._hlc, self._monotonic, self._region_lease, settings.compaction)


async def load_snapshot(store: Store, group: GroupId, machine: GroupState) -> LogIndex | None:
    """Fill an empty state machine with the rows that are in the store, piece by piece, while other groups go on.

    Returns the index up to which they reflect the log; None if other rows took their place meanwhile.
    """
    reader = await store.open_snapshot(group)
    try:
        last = False
        while not last:
            part = await reader.read(_LOADED_BYTES)
            if part is None:
                return None
            data, last = part
            machine.restore([Row(group, *row) for row in decode_rows(data)])
    finally:
        reader.close()
    return reader.index


def check_new_replica(group: GroupId, configuration: Configuration, identity: StoreIdentity) -> ReplicaRole:
    """The role of an empty replica on this store that begins with this configuration; `InvalidRequest` if none can."""
    check_configuration(configuration)
    member = all_members(configuration).get(identity.node)
    if member is None or member.store != identity.store:
        text = f"{identity.node} with store {identity.store} is no member of group {group} in the configuration given"
        raise InvalidRequest(text)
    if member.role is ReplicaRole.FULL:
        raise InvalidRequest(f"an empty replica of group {group} cannot be a full voter; it joins as a learner")
    return member.role


def check_same_kind(replica: Replica, role: ReplicaRole) -> None:
    """Raise `InvalidRequest` unless a replica that is here, perhaps removed, can go on in this role.

    What a witness dropped from its log it has never applied, so its store can hold no learner of that group any more.
    """
    was_witness = replica.machine is None
    if was_witness is not (role is ReplicaRole.WITNESS):
        kept = "its log only, as a witness" if was_witness else "log and state"
        raise InvalidRequest(
            f"the store of this node holds {kept}, of group {replica.group}, so it cannot join as {role}; "
            "choose another node, or give this one a new store (isochrone bootstrap --replace)"
        )
