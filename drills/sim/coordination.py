"""What a world does with locks, leases, elections and watches beside its key-value workload, and the checks of it.

In every place of a client a contender takes locks and campaigns (`contenders`), and the client there follows every
keyspace (`followers`). Now and then a group is compacted, so that who was silent for long meets a gap, or raises the
epoch of its tokens. At the end all followers must have been told everything, and leases that nobody renews must have
ended.
"""

import asyncio
import random
from collections.abc import Sequence

from isochrone.client import Client
from isochrone.client.leases import CLOCK_RATE_MAX
from isochrone.drills.checkers.elections import NAME as ELECTIONS
from isochrone.drills.checkers.elections import check_elections, observation_faults
from isochrone.drills.checkers.exclusion import ExclusionResult, GuardedWrite, check_exclusion
from isochrone.drills.checkers.lease_expiry import LeaseStory, check_lease_expiry
from isochrone.drills.checkers.lock_table import check_lock_tables
from isochrone.drills.checkers.queues import check_queues
from isochrone.drills.checkers.watch_order import WatchStory, check_watches
from isochrone.drills.guarded import Resource, data_of, writes_to_the_store
from isochrone.drills.sim.committed import Committed
from isochrone.drills.sim.contenders import DELAYS_SUFFICE_RATE, Contender, GroupConnector, Promises
from isochrone.drills.sim.followers import Follower
from isochrone.drills.sim.lock_plans import election, lock_names
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.network import Link, Network
from isochrone.drills.sim.observers import Observer
from isochrone.drills.sim.options import SimOptions, rng_for
from isochrone.drills.sim.partaking import Partaker
from isochrone.drills.sim.queueing import queue_of
from isochrone.drills.sim.recipe_checks import recipe_checks
from isochrone.drills.sim.recipe_notes import RecipeNames
from isochrone.drills.sim.schedule import FaultKind, Schedule
from isochrone.drills.sim.sessions import Listeners, SimConnector
from isochrone.drills.verdict import Check, Verdict, guarded
from isochrone.drills.workload import cancel
from isochrone.errors import Indeterminate, InvalidRequest, Rejected
from isochrone.ids import NS_PER_S, GroupId, NodeId
from isochrone.topology.model import Topology
from isochrone.wire.kv import Compact
from isochrone.wire.locks import RaiseTokenEpoch
from isochrone.wire.records import KeyValue

CALL_TIMEOUT_S = 5.0
COMPACTION_GAP_S = 3.5
EPOCH_ODDS = 0.15
"""So often the epoch of tokens is raised, instead of a compaction."""
FINISH_S = 60.0
"""So long after faults contenders, followers and leases may take to come to their end."""
KEYSPACES_MAX = 2
PATIENCE_NS = 15 * NS_PER_S
"""A lease may outlive its time to live by so much: a new leader adds a margin, and gives some time back."""
POLL_S = 0.25


class Coordination:
    """See the module. It does nothing until `start`."""

    def __init__(self, options: SimOptions, topology: Topology, loop: SimLoop, truth: Committed) -> None:
        keyspaces = [(str(keyspace.id), keyspace.group) for keyspace in topology.keyspaces]
        self.resource = Resource(self._now_ns)
        self.healed_ns = 0
        """When faults were over."""
        self._seed = options.seed
        self._keyspaces: dict[str, GroupId] = dict(keyspaces[:KEYSPACES_MAX])
        self._loop = loop
        self._truth = truth
        self._recipes = RecipeNames(keyspaces[0][0]) if options.recipes else None
        self._promises: dict[tuple[GroupId, int], Promises] = {}
        self._contenders: list[Contender] = []
        self._clients: dict[str, Client] = {}
        self._followers: list[Follower] = []
        self._observers: list[Observer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._finished = False

    def _now_ns(self) -> int:
        return round(self._loop.now_s * NS_PER_S)

    # ---- running

    async def add_contender(
        self, name: str, region: str, zone: str, nodes: Sequence[NodeId], network: Network, listeners: Listeners
    ) -> None:
        """Connect a contender of this name, which the network knows. In a world without faults as yet."""
        rng, connector = rng_for(self._seed, f"work of {name}"), SimConnector(network, name, listeners)
        resource, promises = self.resource, self._promises

        def links() -> list[Link]:
            return network.around([name])

        contender = Contender(self._loop, name, self._keyspaces, resource, rng, links, promises)
        if self._recipes is not None:
            contender.partake(self._recipes.keyspace, resource, rng_for(self._seed, f"recipes of {name}"), links)
        self._contenders.append(contender)
        connected: asyncio.Future[None] = self._loop.create_future()

        async def connect() -> None:
            self._clients[name] = await Client.connect(
                list(nodes),
                region=region,
                zone=zone,
                name=name,
                timeout_s=CALL_TIMEOUT_S,
                connector=GroupConnector(self._loop, connector, contender.group),
                rng=rng_for(self._seed, name),
                clock=contender.clock,
            )
            self._loop.at(self._loop.now_s, connected.set_result, None)

        self._loop.spawn_in(contender.group, connect(), f"{name} connects")
        await connected

    def start(self, clients: dict[str, Client], end_s: float) -> None:
        """Contend and follow, until the loop's time `end_s` and until `finish`."""
        for contender in self._contenders:
            work = contender.run(self._clients[contender.name], end_s)
            self._loop.spawn_in(contender.group, work, contender.name)
        for place, client in clients.items():
            for keyspace, group in self._keyspaces.items():
                name = f"{place} on {keyspace}"
                rng = rng_for(self._seed, f"follower {name}")
                follower = Follower(client, name, keyspace, group, rng)
                self._followers.append(follower)
                self._tasks.append(self._loop.create_task(follower.run(end_s), name=f"follower {name}"))
        for place, client in clients.items():
            observer = Observer(client, place, election(next(iter(self._keyspaces))))
            self._observers.append(observer)
            self._tasks.append(self._loop.create_task(observer.run(), name=f"observer {place}"))
        client, rng = next(iter(clients.values())), rng_for(self._seed, "interventions")
        self._tasks.append(self._loop.create_task(self._intervene(client, rng, end_s), name="interventions"))

    async def _intervene(self, client: Client, rng: random.Random, end_s: float) -> None:
        while self._loop.time() < end_s:
            await asyncio.sleep(rng.expovariate(1 / COMPACTION_GAP_S))
            keyspace = rng.choice(list(self._keyspaces))
            revision = self._truth.revision(self._keyspaces[keyspace]) - rng.choice((0, 0, 5, 50))
            raises = rng.random() < EPOCH_ODDS
            operation = RaiseTokenEpoch(keyspace.encode()) if raises else Compact(max(1, revision))
            try:
                await client.execute(keyspace, operation, timeout_s=CALL_TIMEOUT_S)
            except (Rejected, Indeterminate, InvalidRequest):
                continue  # It was compacted further before, or a fault is in the way.

    async def finish(self) -> str | None:
        """Wait until all have come to their end, in a healed world; who has not, or None."""
        deadline_s = self._loop.time() + FINISH_S
        while (reason := self._unfinished()) is not None:
            if self._loop.time() > deadline_s:
                return reason
            await asyncio.sleep(POLL_S)
        self._finished = bool(self._followers)
        return None

    def _unfinished(self) -> str | None:
        for contender in self._contenders:
            if not contender.ended:
                return f"{contender.name} does not come to its end"
        if self._now_ns() < self.healed_ns + 2 * PATIENCE_NS and self._promises.keys() - self._truth.lease_ends.keys():
            return "leases live on"
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return f"{task.get_name()} ended: {task.exception()!r}"
        for follower in self._followers:
            items = self._truth.written(follower.group).items
            wanted = [item for item in items if item.key.startswith(follower.keyspace.encode())]
            if wanted and not follower.knows(wanted[-1]):
                told, last = follower.last_revision, wanted[-1].mod_revision
                return f"follower {follower.name} was told up to {told} of {last}"
        return None

    async def stop(self) -> None:
        """End what listens still."""
        await cancel(self._tasks)

    # ---- checks

    def checks(self, schedule: Schedule) -> list[Check]:
        """What may be said of the run."""
        checks = [
            guarded("lock exclusion", lambda: self.exclusion(schedule).as_check()),
            guarded("lock table", self._lock_tables),
            guarded("elections", self._elections),
            guarded("queues", self._queues),
            guarded("lease expiry", lambda: self._lease_expiry(_rate_max(schedule))),
            guarded("watches", self._watches),
        ]
        if self._recipes is not None:
            group, notes = self._keyspaces[self._recipes.keyspace], [each.notes for each in self._partakers()]
            checks += recipe_checks(self._recipes, group, self._truth, notes)
        return checks

    def _partakers(self) -> list[Partaker]:
        return [contender.partaker for contender in self._contenders if contender.partaker is not None]

    def exclusion(self, schedule: Schedule) -> ExclusionResult:
        """Whether locks excluded each other, as far as the schedule left clocks in their bound."""
        rate_max = _rate_max(schedule)
        holders = [contender.holder for contender in self._contenders] + [each.holder for each in self._partakers()]
        holds = [hold for holder in holders for hold in holder.holds]
        writes = self.resource.writes + self._writes_to_the_store()
        # A lock-delay is measured by timestamps, which jump with the wall clock of the leader.
        stepped = any(fault.kind is FaultKind.CLOCK_STEP for fault in schedule)
        return check_exclusion(
            holds,
            writes,
            clocks_keep_bound=rate_max <= CLOCK_RATE_MAX,
            delays_suffice=rate_max <= DELAYS_SUFFICE_RATE and not stepped,
        )

    def _lock_tables(self) -> Check:
        truth = self._truth
        return check_lock_tables(truth.lock_looks, truth.deadlocks, truth.lock_faults)

    def _writes_to_the_store(self) -> list[GuardedWrite]:
        """What gates in the store let pass, as its own order has it."""
        writes: list[GuardedWrite] = []
        for keyspace, group in self._keyspaces.items():
            for name in lock_names(keyspace):
                writes += writes_to_the_store(name, self._truth.versions(group, data_of(name)))
        return writes

    def _elections(self) -> Check:
        versions = {
            election(keyspace): self._truth.versions(group, election(keyspace).encode())
            for keyspace, group in self._keyspaces.items()
        }
        compacted = self._truth.written(next(iter(self._keyspaces.values()))).compacted
        for observer in self._observers:
            for seen in observer.observations:
                for fault in observation_faults(seen, versions[observer.election], compacted):
                    return Check(ELECTIONS, Verdict.FALSE, f"observer {observer.name}: {fault}.")
        return check_elections(item for each in versions.values() for item in each)

    def _queues(self) -> Check:
        calls = [call for contender in self._contenders for call in contender.queue_calls]
        left: dict[bytes, KeyValue] = {}
        for keyspace, group in self._keyspaces.items():
            prefix = queue_of(keyspace).encode()
            left.update({item.key: item for item in self._truth.written(group).items if item.key.startswith(prefix)})
        return check_queues(calls, [key for key, item in left.items() if item.version])

    def _lease_expiry(self, rate_max: float) -> Check:
        stories = [
            LeaseStory(
                lease=lease,
                ttl_ns=promises.ttl_ns,
                promised_ns=tuple(promises.sent_ns),
                asked_ns=promises.asked_ns,
                revoked_ns=promises.revoked_ns,
                ended_ns=self._truth.lease_ends.get((group, lease)),
            )
            for (group, lease), promises in self._promises.items()
        ]
        return check_lease_expiry(
            stories,
            rate_max=max(rate_max, CLOCK_RATE_MAX),
            healed_ns=self.healed_ns,
            until_ns=self._now_ns(),
            patience_ns=PATIENCE_NS,
        ).as_check()

    def _watches(self) -> Check:
        stories: list[WatchStory] = []
        for follower in self._followers:
            stories += follower.told_so_far(reached_end=self._finished)
        return check_watches(
            stories, {group: self._truth.written(group) for group in self._keyspaces.values()}
        ).as_check()


def _rate_max(schedule: Schedule) -> float:
    """By so much (as a share) a node's clock ran wrong."""
    return max((abs(fault.amount) for fault in schedule if fault.kind is FaultKind.CLOCK_RATE), default=0.0) / 1e6
