"""Carries out a fault schedule on a world.

Starting a fault gives back how to end it. A fault that finds nothing to do (the node is down already, nobody leads)
does nothing, and neither does its end.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from isochrone.drills.sim.changes import Operator
from isochrone.drills.sim.disk import FailingSync
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.machine import Machine
from isochrone.drills.sim.network import Link, Network, Weather
from isochrone.drills.sim.schedule import Fault, FaultKind, Schedule
from isochrone.drills.sim.trace import Trace
from isochrone.ids import NS_PER_MS, GroupId, NodeId

End = Callable[[], None]

NO_STORE = "there is no store on this disk; a node never makes its own, it must rejoin as a learner"
COPY = "the store on this disk is a copy: it was last open on another medium; it must rejoin as a learner"


class Injector:
    """See the module."""

    def __init__(
        self, loop: SimLoop, network: Network, machines: Mapping[NodeId, Machine], operator: Operator, trace: Trace
    ) -> None:
        self.counters: Counter[str] = Counter()
        """Faults that had an effect, by kind."""
        self._loop = loop
        self._network = network
        self._machines = machines
        self._operator = operator
        self._trace = trace
        self._calm = network.weather
        self._weather: dict[int, Fault] = {}
        """Faults of the whole network that are on, by number."""
        self._offsets = {name: machine.clock.offset_ns for name, machine in machines.items()}
        self._ends: dict[int, End] = {}

    def arm(self, schedule: Schedule, start_s: float) -> None:
        """Let the schedule run, counted from `start_s`."""
        for number, fault in enumerate(schedule):
            at_s = start_s + fault.at_ms / 1000
            self._loop.at(at_s, self._start, (number, fault))
            self._loop.at(at_s + fault.duration_ms / 1000, self._end, number)

    def heal(self) -> None:
        """End every fault that is still on, and everything that faults have left behind, but for lost disks."""
        for number in list(self._ends):
            self._end(number)
        self._network.mend_all()
        self._network.weather = Weather(jitter=self._calm.jitter)
        for machine in self._machines.values():
            machine.end_zombies()
            machine.disk.speed_up()
            machine.disk.failing = None
            machine.disk.snapshot_loss = 0.0
            machine.resume_disk()
            machine.clock.synchronise()
            machine.resume()

    def _start(self, item: tuple[int, Fault]) -> None:
        number, fault = item
        self._trace.text(self._loop.now_s, Trace.FAULT, fault.description)
        end = self._carry_out(number, fault)
        if end is not None:
            self.counters[fault.kind.value] += 1
            self._ends[number] = end

    def _end(self, number: int) -> None:
        end = self._ends.pop(number, None)
        if end is not None:
            self._trace.note(self._loop.now_s, Trace.FAULT, number)
            end()

    def _carry_out(self, number: int, fault: Fault) -> End | None:
        match fault.kind:
            case FaultKind.LOSS | FaultKind.DUPLICATE | FaultKind.REORDER | FaultKind.DELAY:
                self._weather[number] = fault
                self._change_weather()
                return lambda: self._clear_up(number)
            case FaultKind.CUT:
                return self._cut(self._network.between(fault.targets[0], fault.targets[1]))
            case FaultKind.CUT_BOTH:
                one, other = fault.targets
                return self._cut([*self._network.between(one, other), *self._network.between(other, one)])
            case FaultKind.SWIZZLE:
                return self._swizzle(fault)
            case FaultKind.TRANSFER | FaultKind.DEMOTE | FaultKind.REMOVE:
                return self._operate(fault)
            case FaultKind.USURP:
                return self._usurp(GroupId(fault.targets[0]), NodeId(fault.targets[1]))
            case FaultKind.LOSE_REGION:
                return self._lose_region(fault.targets[0])
            case FaultKind.CRASH_LEADER | FaultKind.PAUSE_LEADER | FaultKind.STALL_LEADER | FaultKind.CUT_LEADER:
                leader = self._operator.leader_of(GroupId(fault.targets[0]))
                return self._on_leader(fault, leader) if leader is not None else None
            case _:
                return self._on_node(fault, self._machines[NodeId(fault.targets[0])])

    def _operate(self, fault: Fault) -> End | None:
        operator, group, node = self._operator, GroupId(fault.targets[0]), NodeId(fault.targets[1])
        if fault.kind is FaultKind.TRANSFER:
            return _nothing if operator.transfer(group, node) else None
        asked = operator.demote(group, node) if fault.kind is FaultKind.DEMOTE else operator.remove(group, node)

        def put_back() -> None:
            operator.restore_group(group)

        return put_back if asked else None

    def _usurp(self, group: GroupId, successor: NodeId) -> End | None:
        leader = self._operator.leader_of(group)
        if leader is None or not self._operator.transfer(group, successor):
            return None
        zone = leader.endpoint.zone
        return self._cut([link for link in self._network.around([zone]) if link.target.zone == zone])

    # ---- nodes

    def _on_leader(self, fault: Fault, machine: Machine) -> End | None:
        match fault.kind:
            case FaultKind.CRASH_LEADER:
                return _crash(machine, fault)
            case FaultKind.PAUSE_LEADER:
                return machine.resume if machine.pause() else None
            case FaultKind.STALL_LEADER:
                machine.stalls = True
                return machine.end_stall
            case _:
                return self._cut(self._network.around([machine.name]))

    def _on_node(self, fault: Fault, machine: Machine) -> End | None:
        match fault.kind:
            case FaultKind.CRASH:
                return _crash(machine, fault)
            case FaultKind.PAUSE:
                return machine.resume if machine.pause() else None
            case FaultKind.ZOMBIE if machine.process is not None:
                machine.replace(hangs=bool(fault.amount))
                return machine.end_zombies
            case FaultKind.FLAP:
                return self._flap(machine, fault)
            case FaultKind.FAIL_SYNC if machine.process is not None:
                machine.disk.failing = FailingSync(kept=bool(fault.amount))
                return lambda: _repair(machine)
            case FaultKind.SLOW_DISK:
                machine.disk.extra_ms = fault.amount
                return machine.disk.speed_up
            case FaultKind.HANG_DISK:
                machine.disk.hung = True
                return machine.resume_disk
            case FaultKind.WIPE_DISK | FaultKind.OLD_DISK if machine.disk.missing is None:
                machine.kill()
                machine.disk.missing = NO_STORE if fault.kind is FaultKind.WIPE_DISK else COPY
                return machine.start
            case FaultKind.REPLACE_STORE if machine.disk.missing is None:
                machine.kill()
                machine.disk.missing = NO_STORE
                return lambda: self._operator.replace_store(machine.name)
            case FaultKind.CLOCK_STEP:
                machine.clock.step(round(fault.amount * NS_PER_MS))
                return lambda: machine.clock.step(self._offsets[machine.name])
            case FaultKind.CLOCK_RATE:
                machine.clock.run_at(1 + fault.amount / 1e6)
                return lambda: machine.clock.run_at(1.0)
            case _:
                return None

    def _flap(self, machine: Machine, fault: Fault) -> End:
        ended = False

        def turn(up: bool) -> None:
            if ended:
                return
            if up:
                machine.start()
            else:
                machine.kill()
            self._loop.at(self._loop.now_s + fault.amount / 1000, turn, not up)

        def end() -> None:
            nonlocal ended
            ended = True
            machine.start()

        turn(False)
        return end

    def _lose_region(self, region: str) -> End:
        lost = [machine for machine in self._machines.values() if machine.endpoint.region == region]
        mend = self._cut(self._network.around([region]))
        for machine in lost:
            machine.kill()

        def end() -> None:
            mend()
            for machine in lost:
                machine.start()

        return end

    # ---- links

    def _cut(self, links: list[Link]) -> End:
        for link in links:
            link.cut()

        def mend() -> None:
            for link in links:
                link.mend()

        return mend

    def _swizzle(self, fault: Fault) -> End:
        """Cut nodes off one by one in the first half of the time; mend them one by one in the other."""
        half = len(fault.targets) // 2
        step_s = fault.duration_ms / 1000 / (2 * half)
        mends: dict[str, End] = {}
        ended = False

        def cut(node: str) -> None:
            if not ended:
                mends[node] = self._cut(self._network.around([node]))

        def mend(node: str) -> None:
            if node in mends:
                mends.pop(node)()

        def end() -> None:
            nonlocal ended
            ended = True
            for node in list(mends):
                mend(node)

        for position, node in enumerate(fault.targets):
            self._loop.at(self._loop.now_s + position * step_s, cut if position < half else mend, node)
        return end

    # ---- the whole network

    def _clear_up(self, number: int) -> None:
        del self._weather[number]
        self._change_weather()

    def _change_weather(self) -> None:
        def worst(kind: FaultKind, calm: float) -> float:
            return max([calm, *(fault.amount for fault in self._weather.values() if fault.kind is kind)])

        calm = self._calm
        self._network.weather = Weather(
            jitter=calm.jitter,
            delay_s=worst(FaultKind.DELAY, calm.delay_s * 1000) / 1000,
            loss=worst(FaultKind.LOSS, calm.loss),
            duplicate=worst(FaultKind.DUPLICATE, calm.duplicate),
            reorder=worst(FaultKind.REORDER, calm.reorder),
        )


def _nothing() -> None:
    """The end of what ends by itself."""


def _crash(machine: Machine, fault: Fault) -> End | None:
    if machine.process is None:
        return None
    machine.kill(keep=int(fault.amount))
    return machine.start


def _repair(machine: Machine) -> None:
    machine.disk.failing = None
    machine.start()
