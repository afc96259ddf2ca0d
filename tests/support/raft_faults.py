"""Random faults and load for a `raft_cluster.Cluster`."""

import random

from raft_cluster import Cluster

from isochrone.errors import IsochroneError


def random_fault(cluster: Cluster, rng: random.Random) -> None:
    """One fault, or the end of one."""
    names = list(cluster.replicas)
    name = rng.choice(names)
    match rng.randrange(10):
        case 0 | 1:
            replica = cluster.replicas[name]
            if replica.core is not None:
                cluster.crash(name, keep=rng.randrange(len(replica.pending) + 1))
        case 2 | 3:
            if cluster.replicas[name].core is None:
                cluster.start(name)
        case 4:
            cluster.isolate(name)
        case 5 if len(names) > 1:
            a, b = rng.sample(names, 2)
            cluster.cut.add((a, b))
        case 6:
            cluster.heal()
        case 7:
            cluster.loss = rng.choice([0.0, 0.0, 0.05, 0.3])
        case 8:
            cluster.duplication = rng.choice([0.0, 0.2])
        case 9:
            cluster.hold_disk ^= {name}
            if name not in cluster.hold_disk:
                cluster.resume_disk(name)


def propose_somewhere(cluster: Cluster, rng: random.Random, number: int) -> None:
    """Propose and read at whoever believes to lead."""
    for name, replica in list(cluster.replicas.items()):
        if replica.core is not None and replica.core.status().match and rng.random() < 0.9:
            try:
                cluster.propose(name, b"v%d" % number)
                cluster.read(name)
            except IsochroneError:
                continue
