"""A PostgreSQL server of a test's own: in a directory of its own, on a Unix socket only, stopped with the test.

Not durable (`fsync` is off): tests of durability need another.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian keeps the servers, by version; elsewhere they are on the `PATH`."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
USER = "tester"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_buffers": "8MB",
    "max_connections": "20",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


def _programs() -> Path:
    """The directory of `initdb` and `postgres`: the newest that Debian installed, or the one on the `PATH`."""
    found = sorted(INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path:
        found = [Path(on_path).resolve()]
    assert found, "this test needs PostgreSQL; make test-interop installs it"
    return found[-1].parent


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server while the body runs; gives the connection string of its only user, who needs no password."""
    programs = _programs()
    # The server refuses to run as root, and another user could not reach pytest's directories.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="isochrone-postgresql-"))
    try:
        if user:
            shutil.chown(home, user)
        data = home / "data"
        init = [programs / "initdb", "--pgdata", data, "--auth", "trust", "--username", USER, "--encoding", "UTF8"]
        options = ["--locale", "C", "--no-sync"]
        subprocess.run([*init, *options], check=True, stdout=subprocess.DEVNULL, timeout=120, user=user, cwd=home)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (home / "log").open("wb") as log:
            command = [programs / "postgres", "-D", data, "-k", home, *settings]
            server = subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=home)
        try:
            _wait_until_ready(programs, home, server)
            yield f"host={home} user={USER} dbname=postgres"
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
                raise
    finally:
        shutil.rmtree(home)


def _wait_until_ready(programs: Path, home: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    asks = [programs / "pg_isready", "--quiet", "--host", home, "--username", USER, "--dbname", "postgres"]
    while subprocess.run(asks, check=False, timeout=10).returncode != 0:
        log = (home / "log").read_text(errors="replace")
        assert server.poll() is None, f"the server ended:\n{log}"
        assert time.monotonic() < deadline, f"the server is not ready:\n{log}"
        time.sleep(0.05)
