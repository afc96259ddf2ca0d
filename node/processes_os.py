"""Processes of ours: told apart from others by pid and start time, found by session, killed for certain.

Theory of operation. A Ray head is started as leader of a session of its own, in a directory of its own, and
whatever Ray starts stays in that session and that directory, whatever process group, parent or title it gets. So the
processes with both are exactly what a deployment owns on this machine: they, and no others, are killed when it is
taken down. The directory tells our session from a later one that was given the same number.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from isochrone.errors import DeadlineExceeded
from isochrone.node.process import ProcessId


def find_process(process: ProcessId) -> psutil.Process | None:
    """The process, if it still lives."""
    try:
        found = psutil.Process(process.pid)
        alive = _started(process.pid) == process.started and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if alive else None


def this_process() -> ProcessId:
    """The calling process."""
    return process_id(os.getpid())


def process_id(pid: int) -> ProcessId:
    """Identify a process that lives now. Raises `psutil.NoSuchProcess`."""
    return ProcessId(pid, _started(pid))


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to a process; False when it is gone."""
    found = find_process(process)
    if found is None:
        return False
    try:
        found.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_and_wait(processes: Sequence[ProcessId], timeout_s: float) -> None:
    """Kill processes with SIGKILL and return when they are gone.

    Raises:
        DeadlineExceeded: one still lives after `timeout_s`: it hangs in the kernel, on a disk as a rule.
    """
    found = [each for each in map(find_process, processes) if each is not None]
    for each in found:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(found, timeout=timeout_s)
    left = [each.pid for each in alive if _lives(each)]
    if left:
        raise DeadlineExceeded(f"processes {', '.join(map(str, left))} did not end within {timeout_s:g} s of SIGKILL")


def kill_session(leader: ProcessId, directory: Path, timeout_s: float) -> None:
    """Kill every process of the session that `leader` began in `directory`, and return when they are gone.

    Raises:
        DeadlineExceeded: one still lives after `timeout_s`.
    """
    # The leader's children die with it, but their children may start others until they notice: look again until
    # a look finds nobody.
    while members := session_members(leader, directory):
        kill_and_wait(members, timeout_s)


def session_members(leader: ProcessId, directory: Path) -> list[ProcessId]:
    """The live processes of the session that `leader` began in `directory`; the leader first, if it lives."""
    members = []
    home = directory.resolve()  # The kernel tells a process's directory without symbolic links.
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) != leader.pid or (started := _started(process.pid)) < leader.started:
                continue
            if _lives(process) and Path(process.cwd()) == home:
                members.append(ProcessId(process.pid, started))
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            continue  # Gone meanwhile, or another user's.
    return sorted(members, key=lambda member: (member.pid != leader.pid, member.pid))


def _started(pid: int) -> float:
    # psutil adds the time of boot, which moves whenever the wall clock is set. Linux itself counts from boot.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        # There is no /proc, or no such process: psutil tells which.
        return float(psutil.Process(pid).create_time())
    # The name in brackets may hold anything; the start time is field 22, and field 3 comes after the last bracket.
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
