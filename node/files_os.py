"""Files of a deployment directory: durable writes, and locks that end with the process that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isochrone.errors import StorageError
from isochrone.ids import ZoneId
from isochrone.node.config import ConfigError, NodeConfig, check_served, parse_config
from isochrone.node.links import parse_links
from isochrone.topology import Topology, load_topology
from isochrone.wire.shaping import LinkShape


def write_durably(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole; when this returns, the new content survives a loss of power.

    Raises:
        StorageError: the disk is full, read-only or broken, or the directory is not ours. The old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_served_topology(path: Path) -> Topology:
    """Read a topology that is to be run, not only looked at.

    Raises:
        TopologyError: the file is wrong, or asks for what no node can serve.
    """
    topology = load_topology(path)
    check_served(topology, str(path))
    return topology


def load_config(path: Path) -> NodeConfig:
    """Read a node's configuration.

    Raises:
        ConfigError: the file is missing, unreadable or wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    return parse_config(text, str(path))


def load_links(path: Path | None) -> dict[tuple[ZoneId, ZoneId], LinkShape]:
    """Read the link shapes that differ from the topology's; none where the file is absent.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    if path is None:
        return {}
    try:
        return parse_links(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is no file of link shapes: {error}") from error


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made if need be.

    Raises:
        StorageError: with the text `busy` when another process holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(busy) from error
        yield
    finally:
        os.close(descriptor)
