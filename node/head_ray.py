"""A Ray head of our own, in a process of its own: started, found again and killed without touching any other Ray.

Theory of operation. `start_head` starts this module as a program, as leader of a new session. The program starts
Ray's head processes, says at which address on its standard output, and waits. Whatever Ray starts stays in that session
(`node.processes_os`), so taking the head down is killing the session. Nodes need no goodbye: what they acknowledged
is durable.

The head is ours alone: own ports (all drawn by the system), own token (`RAY_AUTH_MODE=token`), own directory,
and `RAY_ADDRESS` and its kin are taken out of its environment, so it joins nothing. Its directory is short and lies
below the system's temporary directory, because Ray makes Unix sockets in it, whose paths may have 107 bytes only.

It starts Ray's processes through `ray._private.node.Node`, as `ray.cluster_utils.Cluster` does, because the public
ways also start an autoscaler and a log monitor, which poll, and cannot be kept on loopback.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from isochrone.errors import DeadlineExceeded, Unavailable
from isochrone.node.files_os import write_durably
from isochrone.node.process import ProcessId
from isochrone.node.processes_os import process_id

LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Address of Ray's own ports. Ray replaces 127.0.0.1 by the host's outward address when it connects, and leaves other
loopback addresses alone."""

OBJECT_STORE_BYTES = 80 << 20
"""Ray's least, nearly: no objects of size pass through Ray."""
START_TIMEOUT_S = 60.0


def ray_environment(ray_directory: Path) -> dict[str, str]:
    """What the environment of a process that starts or joins our Ray holds beyond the usual."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(ray_directory)),
        "RAY_USE_UVLOOP": "0",  # Slower with gRPC's own threads, and not the loop that is tested.
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # By default Ray's own processes go before its workers, which here are the nodes.
        "RAY_memory_monitor_refresh_ms": "0",  # It kills workers when others use up the machine's memory.
    }


FOREIGN_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_JOB_ID",
    "RAY_NAMESPACE",
    "RAY_RUNTIME_ENV_HOOK",
    "RAY_TMPDIR",
)
"""Variables by which a caller's environment would lead us to another Ray."""


def token_file(ray_directory: Path) -> Path:
    """Where the token of the Ray in `ray_directory` lies."""
    return ray_directory / "token"


def new_ray_directory() -> Path:
    """Make a short directory with a fresh token in it; removed when the deployment is taken down."""
    directory = Path(tempfile.mkdtemp(prefix="isochrone-"))
    write_durably(token_file(directory), secrets.token_hex(32), mode=0o600)
    return directory


def start_head(ray_directory: Path, log: Path) -> tuple["subprocess.Popen[str]", ProcessId]:
    """Start the head's process in a session of its own. It is not ready yet: see `head_address`."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "isochrone.node.head_ray", str(ray_directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=ray_directory,
            env=environment | ray_environment(ray_directory),
            start_new_session=True,
        )
    return process, process_id(process.pid)


def head_address(process: "subprocess.Popen[str]", log: Path) -> str:
    """Wait until a head is ready, and return its address (`host:port`).

    Raises:
        Unavailable: the head ended; its last words are in the text, all of them in `log`.
    """
    assert process.stdout is not None
    with process.stdout as output:
        address = output.readline().strip()
    if address:
        return address
    process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise Unavailable(f"Ray did not start: {lines[-1] if lines else 'it said nothing'} (more in {log})")


def main() -> None:
    """Run a head until SIGTERM. The one argument is its directory."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(round(START_TIMEOUT_S))
    ray_directory = Path(sys.argv[1])

    from ray._private.node import Node
    from ray._private.parameter import RayParams

    parameters = RayParams(
        node_ip_address=LOOPBACK,
        temp_dir=str(ray_directory / "ray"),
        num_cpus=2,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        dashboard_agent_listen_port=None,
        include_log_monitor=False,  # type: ignore[arg-type]  # annotated as a text, used as a truth value
        no_monitor=True,
    )
    head = Node(parameters, head=True, shutdown_at_exit=True, spawn_reaper=True)
    signal.alarm(0)
    print(head.gcs_address, flush=True)
    sys.stdout.close()
    # SIGTERM ends the process by the handler that Ray's Node has set, which ends Ray's processes too.
    while True:
        signal.pause()


def _too_slow(_: int, __: FrameType | None) -> None:
    raise DeadlineExceeded(f"Ray's processes were not up after {START_TIMEOUT_S:g} s")


if __name__ == "__main__":
    main()
