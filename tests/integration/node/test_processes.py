"""What is ours among the processes of a machine, and that nothing else is ever killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from isochrone.node.process import ProcessId
from isochrone.node.processes_os import find_process, kill_and_wait, kill_session, process_id, send, session_members

LEADER = """
import os, subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleeper, process_group=0)
foreign = subprocess.Popen(sleeper, cwd=sys.argv[1])
print(child.pid, foreign.pid, flush=True)
child.wait()
"""


class Session:
    """A session leader with a child in a process group of its own, and one in another directory."""

    def __init__(self, directory: Path, elsewhere: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEADER, str(elsewhere)],
            cwd=directory,
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.leader = process_id(self.process.pid)
        assert self.process.stdout is not None
        self.child, self.foreign = map(int, self.process.stdout.readline().split())

    def end(self) -> None:
        for pid in (self.child, self.foreign):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        with self.process:
            pass


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A running session."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    session = Session(tmp_path / "ours", tmp_path / "theirs")
    yield session
    session.end()


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_session_is_killed_with_all_its_process_groups_and_nothing_else(session: Session) -> None:
    members = session_members(session.leader, session.directory)
    assert [member.pid for member in members] == [session.leader.pid, session.child]
    kill_session(session.leader, session.directory, 10.0)
    assert not is_alive(session.leader.pid)
    assert not is_alive(session.child)
    assert is_alive(session.foreign)


def test_a_session_is_found_by_a_path_with_a_symbolic_link_in_it(session: Session, tmp_path: Path) -> None:
    """As where TMPDIR is a link."""
    (tmp_path / "link").symlink_to(session.directory.parent)
    members = session_members(session.leader, tmp_path / "link" / session.directory.name)
    assert [member.pid for member in members] == [session.leader.pid, session.child]


def test_what_outlives_its_leader_is_still_found(session: Session) -> None:
    session.process.kill()
    session.process.wait()
    assert [member.pid for member in session_members(session.leader, session.directory)] == [session.child]
    kill_session(session.leader, session.directory, 10.0)
    assert not is_alive(session.child)


def test_a_stopped_process_is_killed_too(session: Session) -> None:
    os.kill(session.child, signal.SIGSTOP)
    kill_session(session.leader, session.directory, 10.0)
    assert not is_alive(session.child)


def test_a_later_process_with_the_same_pid_is_not_ours(session: Session) -> None:
    earlier = ProcessId(session.child, process_id(session.child).started - 1.0)
    assert find_process(earlier) is None
    assert send(earlier, signal.SIGKILL) is False
    kill_and_wait([earlier], 1.0)
    assert is_alive(session.child)


def test_a_later_session_with_the_same_number_is_not_ours(session: Session) -> None:
    later = ProcessId(session.leader.pid, session.leader.started + 60.0)
    assert session_members(later, session.directory) == []
    assert session_members(session.leader, session.directory / "other") == []


def test_a_signal_reaches_a_live_process(session: Session) -> None:
    assert send(process_id(session.child), signal.SIGKILL) is True
    psutil.wait_procs([psutil.Process(session.leader.pid)], timeout=10.0)
    assert not is_alive(session.child)
    assert send(session.leader, signal.SIGTERM) is False
