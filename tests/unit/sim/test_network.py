"""The simulated network: order, cuts, and what the weather does to frames."""

import asyncio
import random
from collections.abc import Callable

from isochrone.drills.sim.loop import START_S, SimLoop
from isochrone.drills.sim.network import Network, Weather
from isochrone.drills.sim.run_os import find_topology
from isochrone.drills.sim.trace import Trace
from isochrone.ids import ZoneId
from isochrone.wire.shaping import LinkShape

FRAMES = 2_000


def run(seed: int, weather: Weather, send: Callable[[SimLoop, Network, list[tuple[float, int]]], None]) -> Network:
    """Let `send` use a network of two endpoints for an hour."""
    loop = SimLoop(random.Random(seed), steps_max=1_000_000)
    topology = find_topology("three-zones")
    network = Network(loop, random.Random(seed), Trace(), topology)
    network.weather = weather
    for node in topology.nodes:
        network.add(node.id, node.zone, node.region)
    arrived: list[tuple[float, int]] = []

    async def main() -> None:
        send(loop, network, arrived)
        await asyncio.sleep(3600)

    loop.run(main())
    return network


def flood(network: Network, loop: SimLoop, arrived: list[tuple[float, int]], *, stream: bool) -> None:
    """Send frames a millisecond apart."""
    link = network.link("us-east-1a-1", "us-east-1b-1")

    def send(number: int) -> None:
        link.send(lambda sent: arrived.append((loop.now_s, sent)), number, stream=stream)

    for number in range(FRAMES):
        loop.at(START_S + number / 1000, send, number)


def outcome(seed: int, weather: Weather, *, stream: bool) -> tuple[list[int], Network]:
    kept: list[tuple[float, int]] = []

    def send(loop: SimLoop, network: Network, _: list[tuple[float, int]]) -> None:
        flood(network, loop, kept, stream=stream)

    network = run(seed, weather, send)
    assert [time for time, _ in kept] == sorted(time for time, _ in kept)
    return [number for _, number in kept], network


def test_a_stream_keeps_its_order_whatever_the_jitter() -> None:
    weather = Weather(jitter=10.0, delay_s=0.1, duplicate=0.3, reorder=0.3)
    assert outcome(1, weather, stream=True)[0] == list(range(FRAMES))


def test_loss_repetition_and_disorder_come_as_often_as_asked_and_as_the_seed_says() -> None:
    numbers, network = outcome(1, Weather(loss=0.1), stream=False)
    assert network.lost == FRAMES - len(numbers)
    assert 0.05 * FRAMES < network.lost < 0.2 * FRAMES
    assert numbers == sorted(numbers)
    assert outcome(1, Weather(loss=0.1), stream=False)[0] == numbers
    assert outcome(2, Weather(loss=0.1), stream=False)[0] != numbers

    numbers, network = outcome(1, Weather(duplicate=0.1), stream=False)
    assert len(numbers) == FRAMES + network.repeated
    assert 0.05 * FRAMES < network.repeated < 0.2 * FRAMES

    numbers, network = outcome(1, Weather(reorder=0.1), stream=False)
    assert sorted(numbers) == list(range(FRAMES))
    assert numbers != sorted(numbers)
    assert network.reordered > 0.05 * FRAMES


def test_a_cut_takes_the_frames_on_their_way_and_is_ended_as_often_as_begun() -> None:
    arrived: list[str] = []

    def send(loop: SimLoop, network: Network, _: list[tuple[float, int]]) -> None:
        link, back = network.link("us-east-1a-1", "us-east-1b-1"), network.link("us-east-1b-1", "us-east-1a-1")

        def at(ms: float, action: Callable[[], object]) -> None:
            loop.at(START_S + ms / 1000, lambda _: action(), None)

        at(0, lambda: link.send(arrived.append, "on its way", stream=True))
        at(0.1, link.cut)
        at(0.1, lambda: back.send(arrived.append, "the other way", stream=True))
        at(10, link.cut)
        at(20, link.mend)
        at(30, lambda: link.send(arrived.append, "still cut", stream=True))
        at(40, link.mend)
        at(50, lambda: link.send(arrived.append, "mended", stream=True))

    network = run(1, Weather(), send)
    assert arrived == ["the other way", "mended"]
    assert network.lost == 2


def test_places_are_regions_zones_and_endpoints() -> None:
    def send(_: SimLoop, network: Network, __: list[tuple[float, int]]) -> None:
        network.add("client", network.link("us-east-1a-1", "us-east-1b-1").source.zone, "us-east-1")
        between = {(link.source.name, link.target.name) for link in network.between("us-east-1a", "us-east-1b-1")}
        assert between == {("us-east-1a-1", "us-east-1b-1"), ("client", "us-east-1b-1")}
        assert len(network.around(["us-east-1c-1"])) == 6
        assert network.around(["us-east-1"]) == []

    run(1, Weather(), send)


def test_links_take_the_shape_that_a_topology_or_a_drill_gives_them() -> None:
    link = (ZoneId("us-east-1a"), ZoneId("us-east-1b"))
    arrived: list[tuple[float, int]] = []

    def send(loop: SimLoop, network: Network, _: list[tuple[float, int]]) -> None:
        network.reshape({link: LinkShape(delay_ms=50.0, jitter_ms=10.0, loss=0.1)}, ["us-east-1a-1"])
        network.reshape({link: LinkShape(cut=True)}, ["us-east-1b-1", "us-east-1c-1"])
        flood(network, loop, arrived, stream=True)

    network = run(1, Weather(), send)
    assert 0.05 * FRAMES < network.lost < 0.2 * FRAMES
    delays_s = [time_s - START_S - number / 1000 for time_s, number in arrived]
    assert len(delays_s) == FRAMES - network.lost
    assert 0.050 <= min(delays_s) < 0.051 and 0.059 < max(delays_s) < 0.0605


def test_a_shape_that_is_cut_counts_as_one_cut() -> None:
    pair = (ZoneId("us-east-1a"), ZoneId("us-east-1b"))
    arrived: list[int] = []

    def send(_: SimLoop, network: Network, __: list[tuple[float, int]]) -> None:
        link = network.link("us-east-1a-1", "us-east-1b-1")

        def leaves(number: int) -> bool:
            return link.send(arrived.append, number, stream=True)

        assert leaves(1), "but a cut begins before it arrives"
        for _again in range(2):
            network.reshape({pair: LinkShape(cut=True)}, ["us-east-1a-1"])
        assert not leaves(2)
        link.cut()
        network.reshape({pair: LinkShape()}, ["us-east-1a-1"])
        assert not leaves(3)
        link.mend()
        assert leaves(4)

    run(1, Weather(), send)
    assert arrived == [4]
