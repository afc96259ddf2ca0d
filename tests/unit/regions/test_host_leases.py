"""Lease reads through production hosts and the SDK: never stale, whatever is paused, cut, restarted or handed over."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.client import Client
from isochrone.drills.checkers.linearizability import check_linearizability
from isochrone.drills.history import Operation, OperationKind
from isochrone.drills.history import Outcome as Told
from isochrone.drills.verdict import Verdict
from isochrone.errors import IsochroneError, NotLeader, Rejected
from isochrone.ids import KeyspaceId, NodeId, ReplicaRole
from isochrone.regions.host import Host
from isochrone.regions.requests import Outcome
from isochrone.wire.commands import Query, encode_query
from isochrone.wire.kv import PackedResult, Range

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
THREE = {"a": FULL, "b": FULL, "c": FULL}
WITNESSED = {"a": FULL, "b": FULL, "w": WITNESS}
DRIFT_PPM = 100_000


def _in_cluster(
    test: Callable[[HostCluster], Awaitable[None]], roles: dict[str, ReplicaRole] = THREE, seed: int = 1
) -> None:
    async def main() -> None:
        cluster = HostCluster(roles, seed, lease_reads=True, clock_drift_ppm_max=DRIFT_PPM)
        rng = random.Random(f"leases/{seed}")
        for process in cluster.processes.values():
            process.clock.ppm = rng.choice([-DRIFT_PPM, 0, DRIFT_PPM])
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def _host(cluster: HostCluster, name: str) -> Host:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host


def _read(host: Host, key: str) -> list[Outcome]:
    """Ask a host for a read; its outcome appears in the list."""
    outcomes: list[Outcome] = []
    host.read(GROUP, KEYSPACE, encode_query(Range(key.encode())), outcomes.append)
    return outcomes


def test_a_read_under_a_lease_takes_no_round_trip() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        outcomes = _read(_host(cluster, "a"), "k/x")
        await asyncio.sleep(0)
        assert outcomes and outcomes[0].error is None

    _in_cluster(test)


def test_a_process_stopped_between_the_check_of_its_lease_and_its_answer_answers_nothing_stale() -> None:
    """It is stopped for two election timeouts after it looked at its clock, and goes on while it reads the state."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "old")
        host, clock = _host(cluster, "a"), cluster.processes[NodeId("a")].clock
        clock.held = clock.monotonic()
        cluster.isolate("a")
        other = await cluster.client(timeout_s=10.0)
        cluster.cut -= {pair for name in "bc" for pair in ((name, "client-1"), ("client-1", name))}
        assert (await other.put("k/x", "new")).replica in "bc"
        machine = host.replicas[GROUP].machine
        assert machine is not None
        query = machine.query

        def goes_on(keyspace: KeyspaceId, wanted: Query, lease_remaining_ms: int) -> PackedResult:
            clock.held = None
            return query(keyspace, wanted, lease_remaining_ms)

        machine.query = goes_on  # type: ignore[method-assign]
        outcomes = _read(host, "k/x")
        await asyncio.sleep(0)
        assert clock.held is None, "by its old reading the lease held, so the state was read"
        assert not outcomes
        await cluster.until(lambda: bool(outcomes))
        assert isinstance(outcomes[0].error, NotLeader)

    _in_cluster(test)


@pytest.mark.parametrize("roles", [THREE, WITNESSED], ids=["three full", "with a witness"])
@pytest.mark.parametrize("seed", range(8))
def test_histories_with_leases_are_linearizable(roles: dict[str, ReplicaRole], seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"lease histories/{seed}/{len(roles)}")
    history: list[Operation] = []

    async def work(client: Client, process: int) -> None:
        for _ in range(60):
            await asyncio.sleep(rng.uniform(0.0, 0.25))
            kind = rng.choice([OperationKind.GET, OperationKind.GET, OperationKind.PUT])
            told = await _operate(client, process, kind, f"k/{rng.randrange(2)}", str(rng.random()))
            history.append(told)
            if told.outcome is Told.INFO:
                process += 100

    async def test(cluster: HostCluster) -> None:
        clients = [await cluster.client(timeout_s=4.0) for _ in range(4)]
        works = [asyncio.ensure_future(work(client, number)) for number, client in enumerate(clients)]
        while not all(each.done() for each in works):
            await asyncio.sleep(rng.choice([0.2, 0.5, 1.0]))
            await _fault(cluster, rng)
        await asyncio.gather(*works)
        cluster.heal()

    _in_cluster(test, roles, seed)
    assert sum(told.outcome is Told.OK for told in history) > 40
    result = check_linearizability(history, 1_000_000)
    assert result.verdict is Verdict.TRUE, result.as_check()


async def _operate(client: Client, process: int, kind: OperationKind, key: str, value: str) -> Operation:
    loop = asyncio.get_running_loop()
    invoked = round(loop.time() * 1e9)
    outcome, found = Told.OK, None
    try:
        if kind is OperationKind.PUT:
            await client.put(key, value)
        else:
            found = (await client.get(key)).value
    except Rejected:
        outcome = Told.FAIL
    except IsochroneError:
        outcome = Told.INFO
    return Operation(
        process=process,
        region="r",
        keyspace="k/",
        kind=kind,
        key=key,
        outcome=outcome,
        invoke_ns=invoked,
        complete_ns=round(loop.time() * 1e9),
        value=value if kind is OperationKind.PUT else None if found is None else found.decode(),
    )


async def _fault(cluster: HostCluster, rng: random.Random) -> None:
    name = rng.choice(list(cluster.processes))
    leader = cluster.leader()
    process = cluster.processes[name]
    match rng.randrange(8):
        case 0 if process.host is not None:
            await cluster.crash(name, keep=rng.randrange(process.store.pending + 1))
            await cluster.start(name)
        case 1 if leader is not None:
            cluster.isolate(leader)
        case 2 if leader is not None:
            cluster.cut |= {(other, leader) for other in cluster.processes if other != leader}
        case 3 if leader is not None:
            other = rng.choice([other for other in cluster.processes if other != leader])
            cluster.cut |= {(leader, other), (other, leader)}
        case 4 | 5 if leader is not None:
            targets = [other for other, role in cluster.roles.items() if role is FULL and other != leader]
            _host(cluster, leader).administration.transfer_leadership(
                GROUP, NodeId(rng.choice(targets)), lambda _outcome: None
            )
        case _:
            cluster.heal()
