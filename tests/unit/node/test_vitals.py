"""What a node looks at once a second, in virtual time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from host_asker import Asker
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.vitals import Vitals
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire

FULL = ReplicaRole.FULL


def with_vitals(warn_after_s: float, test: Callable[[HostCluster, Asker, dict[str, Vitals]], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        asker = Asker(cluster)
        vitals = {str(name): Vitals(asker.host(name).replicas, warn_after_s) for name in cluster.processes}
        for each in vitals.values():
            each.begin()
        await asker.write(LeaseGrant(1, 3_600_000))
        await asker.write(LockAcquire(b"k/lock", 1, 1, value=b"worker"))
        await test(cluster, asker, vitals)
        for each in vitals.values():
            each.end()
        await cluster.stop_all()

    run_virtual(main())


def test_the_leader_alone_warns_and_its_successor_counts_anew(caplog: pytest.LogCaptureFixture) -> None:
    async def test(cluster: HostCluster, asker: Asker, vitals: dict[str, Vitals]) -> None:
        first = cluster.leader()
        assert first is not None
        await asyncio.sleep(15)
        assert {name: each.held_too_long[GROUP] for name, each in vitals.items() if each.held_too_long} == {first: 1}
        assert vitals[first].held_too_long_now(GROUP) == 1
        asker.host().administration.transfer_leadership(GROUP, NodeId("b" if first == "a" else "a"), lambda _: None)
        await cluster.until(lambda: cluster.leader() not in (None, first))
        second = cluster.leader()
        assert second is not None
        await asyncio.sleep(8)
        assert (vitals[second].held_too_long_now(GROUP), vitals[first].held_too_long_now(GROUP)) == (0, 0)
        await asyncio.sleep(4)
        assert (vitals[second].held_too_long_now(GROUP), vitals[second].held_too_long[GROUP]) == (1, 1)

    with caplog.at_level(logging.WARNING, "isochrone.node.vitals"):
        with_vitals(10.0, test)
    first, second = caplog.messages
    assert first.startswith("lock 'k/lock' is held for 1") and first.endswith("; 0 wait for it"), first
    assert "by lease 1 ('worker'), token " in second


def test_nobody_is_warned_about_without_a_time(caplog: pytest.LogCaptureFixture) -> None:
    async def test(cluster: HostCluster, _: Asker, vitals: dict[str, Vitals]) -> None:
        await asyncio.sleep(500)
        assert not any(each.held_too_long or each.held_too_long_now(GROUP) for each in vitals.values())

    with_vitals(0.0, test)
    assert not caplog.messages


def test_the_lag_of_the_loop_is_how_late_a_beat_came() -> None:
    class LateLoop:
        """Calls back whenever it is told to; its time is set by hand."""

        now = 0.0
        calls: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []  # noqa: RUF012

        def time(self) -> float:
            return self.now

        def call_at(self, when: float, callback: Callable[..., None], *arguments: object) -> None:
            self.calls.append((when, callback, arguments))

    loop = LateLoop()
    vitals = Vitals({}, 0.0)
    vitals._arm(loop)  # type: ignore[arg-type]
    for late_s in (0.0, 0.3, 0.002):
        when, callback, arguments = loop.calls.pop()
        loop.now = when + late_s
        callback(*arguments)
    assert vitals.loop_lag_ns.count == 3
    assert vitals.loop_lag_ns.total == pytest.approx(302_000_000)
