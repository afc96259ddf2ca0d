"""Did a node end that no fault was to end? A crash that the supervisor mends at once leaves no other trace.

Each opening of a store raises its incarnation, so a node's incarnations count its starts.
"""

from collections import Counter
from collections.abc import Iterable

from isochrone.drills.faults import ResolvedFault
from isochrone.drills.record import DrillRecord
from isochrone.drills.schema import FaultKind
from isochrone.drills.verdict import Check, Verdict
from isochrone.ids import NodeId
from isochrone.topology.model import Topology

NAME = "no unplanned end"


def planned_starts(topology: Topology, faults: Iterable[ResolvedFault]) -> Counter[NodeId]:
    """How often faults that have ended made each node start again."""
    starts: Counter[NodeId] = Counter()
    for fault in faults:
        match fault.kind:
            case FaultKind.KILL_NODE if fault.node is not None:
                starts[fault.node] += 1
            case FaultKind.KILL_REGION:
                starts.update(node.id for node in topology.nodes if node.region == fault.region)
            case _:
                pass
    return starts


def check_starts(record: DrillRecord) -> Check:
    """Judge whether every node started exactly as often as faults made it."""
    before, after = record.incarnations_before, record.incarnations_after
    if after is None:
        return Check(NAME, Verdict.UNKNOWN, "the nodes were not asked at the end.")
    ended = [run.fault for run in record.faults if run.end_ns is not None]
    planned = planned_starts(record.topology, ended)
    starts = {node: incarnation - before[node] for node, incarnation in after.items()}
    wrong = [
        f"{node} started {count} times, faults demand {planned[node]}"
        for node, count in starts.items()
        if count != planned[node]
    ]
    if wrong:
        return Check(NAME, Verdict.FALSE, "; ".join(wrong) + "; the logs of the nodes tell why.")
    return Check(NAME, Verdict.TRUE, f"{len(after)} nodes started {planned.total()} times, as faults demanded.")
