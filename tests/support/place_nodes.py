"""Program: place the nodes of a topology on a Ray cluster of three labelled nodes, kill one, hold all.

It takes a directory to bootstrap, the topology file, and the file to which it writes where the nodes were.

It is a program of its own because Ray keeps one connection, one token and one set of settings per process.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

directory = Path(sys.argv[1])
topology_file = Path(sys.argv[2])
result_file = Path(sys.argv[3])


def main() -> None:
    """Run the program."""
    from isochrone.node.head_ray import new_ray_directory, ray_environment

    ray_directory = new_ray_directory()
    os.environ.update(ray_environment(ray_directory) | {"RAY_TMPDIR": str(ray_directory)})
    os.chdir(ray_directory)
    import ray
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_log_monitor": False}
    zones = ("us-east-1a", "us-east-1b", "us-east-1c")
    first, *others = [{**arguments, "labels": {"isochrone.io/zone": zone}} for zone in zones]
    cluster = Cluster(initialize_head=True, head_node_args={**first, "include_dashboard": False, "no_monitor": True})
    try:
        for each in others:
            cluster.add_node(wait=False, **each)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, namespace="isochrone", log_to_driver=False)
        result_file.write_text(json.dumps(asyncio.run(place())), encoding="utf-8")
        ray.shutdown()
    finally:
        cluster.shutdown()
        shutil.rmtree(ray_directory)


async def place() -> dict[str, Any]:
    """Start the nodes; return the zone label of the Ray node on which each runs, before and after a restart."""
    from isochrone.node.bootstrap_os import bootstrap, write_configs
    from isochrone.node.driver_ray import call, placement_of, supervise
    from isochrone.node.layout import Layout
    from isochrone.node.ports_os import choose_addresses
    from isochrone.topology import load_topology

    topology = load_topology(topology_file)
    layout = Layout(directory)
    record = bootstrap(topology_file, directory, lambda _: None)
    write_configs(topology, layout, record, choose_addresses(topology), local=True)
    region = topology.regions[0].id
    supervise(topology, region, directory)
    nodes = [spec.id for spec in topology.nodes]
    for node in nodes:
        await call(region, "release", node, 60.0, timeout_s=60.0)
    found: dict[str, Any] = {"placement": placement_of(topology).describe(), "started": zones_of(nodes)}
    state = await call(region, "state", timeout_s=10.0)
    os.kill(state.processes[nodes[2]].pid, signal.SIGKILL)
    async with asyncio.timeout(60.0):
        while (await call(region, "state", timeout_s=10.0)).views[nodes[2]].failures == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await call(region, "release", nodes[2], 60.0, timeout_s=60.0)
    found["restarted"] = zones_of(nodes)
    for node in nodes:  # At least two of them run on another Ray node than their supervisor.
        await call(region, "hold", node, 20.0, timeout_s=20.0)
    found["held"] = len((await call(region, "state", timeout_s=10.0)).processes)
    return found


def zones_of(nodes: list[Any]) -> dict[str, str]:
    """The zone label of the Ray node on which each node's actor runs."""
    import ray

    from isochrone.node.actor_ray import actor_name

    labels = {each["NodeID"]: each["Labels"]["isochrone.io/zone"] for each in ray.nodes()}
    placed = {}
    for node in nodes:
        _, ray_node = ray.get(ray.get_actor(actor_name(node), namespace="isochrone").process.remote())
        placed[str(node)] = labels[ray_node]
    return placed


if __name__ == "__main__":
    main()
