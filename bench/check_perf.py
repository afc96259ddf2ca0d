"""`etcdctl check perf`: etcd's own check of a cluster's performance, against whatever speaks etcd's API."""

import re
import subprocess
from collections.abc import Mapping

from etcd_cluster import require

SECONDS = 60
"""So long it loads."""


class CheckFailed(Exception):
    """The check told no figures."""


def check_perf(address: str, load: str) -> Mapping[str, float]:
    """What the check says; it takes a minute. Keys: `writes_per_s`, `slowest_s`, `stddev_s`.

    Raises:
        NotInstalled: there is no etcdctl.
        CheckFailed: it told no figures, as when many of its calls fail.
    """
    require("etcdctl")
    done = subprocess.run(
        ["etcdctl", f"--endpoints={address}", "check", "perf", f"--load={load}", "--prefix=bench/check-perf/"],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,  # its status says whether its own limits were met
        env={"ETCDCTL_API": "3", "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    return parse_check_perf(done.stdout + done.stderr)


def parse_check_perf(text: str) -> Mapping[str, float]:
    """Read the figures out of what `etcdctl check perf` printed. Raises `CheckFailed`."""
    patterns = {
        "writes_per_s": r"Throughput (?:is|too low:) (\d+)",
        "slowest_s": r"Slowest request took(?: too long:)? ([\d.]+)s",
        "stddev_s": r"Stddev(?: too high:| is) ([\d.]+)s",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    if missing := [name for name, match in found.items() if match is None]:
        said = " ".join(line for line in text.splitlines() if "%" not in line)
        raise CheckFailed(f"etcdctl check perf did not tell {', '.join(missing)}: {said[-500:]}")
    return {name: float(match[1]) for name, match in found.items() if match is not None}
