"""The data directory of a node: made once at bootstrap, locked while open, and bound to its medium.

**Identity.** A voter is a node with one particular store, so what a store remembers must never be lost or doubled
unseen. Therefore:

1. a store is made only by `bootstrap_store`, in an empty directory; `open_store` never makes one;
2. a store opens only for the cluster, node and store id that it was made for;
3. it opens only on the medium on which it was closed (file system, inode and the inode's generation): a copy or a
   restored backup has another, and would vote with a memory that is out of date. `moved` accepts a new medium; it is
   the operator's word that the store was stopped, moved as a whole, and that the original is gone;
4. one process at a time: an exclusive lock on the file `lock`, which names the holder;
5. each opening raises the incarnation, durably, before anything is served.

A node's incarnation rises over all its stores: one that takes the place of another begins above whatever that one can
have reached (`ports.first_incarnation`). Peers remember incarnations by the node's name, and must neither take the new
store's process for a zombie, nor a process that still runs on the old store for a live one.

HAZARD: an older copy written over the file *in place* keeps the inode and is not noticed here. Peers notice it: they
remember the highest incarnation seen of this store and refuse a lower one.

HAZARD: a file system's identity is what `statvfs` calls it. Where that follows the device's number (XFS), a store whose
device is numbered anew is refused, although it is the same; `moved` says so.

HAZARD: the lock belongs to the open file, so a child process forked without exec holds it too.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from isochrone.errors import StorageError
from isochrone.ids import ClusterId, GroupId, Incarnation, NodeId, StoreId
from isochrone.ports import StoreIdentity, first_incarnation
from isochrone.regions.storage.image_lmdb import (
    DATA_FILE,
    Image,
    Medium,
    create_image,
    open_image,
    write_identity,
)
from isochrone.regions.storage.store_lmdb import Commit, LmdbStore, commit_transaction
from isochrone.wire.messages import Configuration

LOCK_FILE = "lock"
MAP_BYTES_MAX = 64 << 30
"""Default limit of the map and so of the data file."""

_FS_IOC_GETVERSION = 0x80087601
"""Linux, `linux/fs.h`: the generation of an inode, which tells apart two files that had one inode number in turn."""
_NO_GENERATION = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def bootstrap_store(
    path: Path,
    cluster: ClusterId,
    node: NodeId,
    store: StoreId,
    groups: Mapping[GroupId, Configuration],
    *,
    replacements: int = 0,
) -> None:
    """Make a store in an empty or absent directory. When this returns, it is durable.

    `replacements`: how many stores the node had before this one.

    Raises:
        StorageError: the directory is not empty, or the store cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = sorted(os.listdir(path))
        if found:
            raise StorageError(
                f"{path} is not empty: it holds {', '.join(found[:3])}; a store is made only in an empty one"
            )
        lock = _lock(path)
        try:
            identity = StoreIdentity(cluster, node, store, first_incarnation(replacements))
            create_image(path, identity, groups, _medium_of)
            _sync_directory(path)
            _sync_directory(path.parent)
        finally:
            os.close(lock)
    except OSError as error:
        raise StorageError(f"cannot make a store in {path}: {error}") from error


def open_store(
    path: Path,
    cluster: ClusterId,
    node: NodeId,
    store: StoreId,
    *,
    moved: bool = False,
    map_bytes_max: int = MAP_BYTES_MAX,
    commit: Commit = commit_transaction,
) -> LmdbStore:
    """Open the store of a node and raise its incarnation.

    Args:
        path: the data directory.
        cluster: the cluster that the store must belong to; likewise `node` and `store`.
        node: see `cluster`.
        store: see `cluster`.
        moved: accept another medium than the one on which the store was last open.
        map_bytes_max: writes that would make the data file longer are refused.
        commit: how a transaction is committed; runs in the storage thread.

    Raises:
        StorageError: there is no such store, it is another's, in use, on another medium, or damaged.
    """
    try:
        data = path / DATA_FILE
        if not data.is_file() or data.stat().st_size == 0:
            raise StorageError(
                f"there is no store in {path}; a node never makes its own, it must rejoin as a learner: "
                "see isochrone bootstrap --replace"
            )
        lock = _lock(path)
        try:
            image = _open_image(path, StoreIdentity(cluster, node, store, Incarnation(0)), moved=moved)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise StorageError(f"cannot open the store in {path}: {error}") from error
    return LmdbStore(image, map_bytes_max=map_bytes_max, release=_closer(lock), commit=commit)


def _open_image(path: Path, expected: StoreIdentity, *, moved: bool) -> Image:
    image = open_image(path)
    try:
        found = image.identity
        if replace(found, incarnation=expected.incarnation) != expected:
            raise StorageError(
                f"{path} holds the store {found.store} of node {found.node} in cluster {found.cluster}; "
                f"expected {expected.store} of node {expected.node} in cluster {expected.cluster}"
            )
        medium = _medium_of(path / DATA_FILE)
        if medium != image.medium and not moved:
            raise StorageError(
                f"{path} is a copy: the store was last open on medium {_text(image.medium)} and is now on "
                f"{_text(medium)}; a restored one must rejoin as a learner "
                "(see isochrone bootstrap --replace), one that was stopped and moved whole starts with --moved"
            )
        write_identity(image, replace(found, incarnation=Incarnation(found.incarnation + 1)), medium)
    except BaseException:
        image.environment.close()
        raise
    return image


def _closer(descriptor: int) -> Callable[[], None]:
    return lambda: os.close(descriptor)


def _text(medium: Medium) -> str:
    return f"{medium[0]:x}/{medium[1]}/{medium[2]}"


def _lock(path: Path) -> int:
    """Lock a data directory for this process; returns the descriptor that holds the lock."""
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(f"{path} is in use by process {holder}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def _medium_of(file: Path) -> Medium:
    """What a file stands on: identities that survive a restart of the machine, unlike device numbers."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            packed = fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, b"\0" * 8)
            generation = struct.unpack("<I", packed[:4])[0]
        except OSError as error:
            if error.errno not in _NO_GENERATION:
                raise
            generation = 0  # this file system has none
        return os.fstatvfs(descriptor).f_fsid, os.fstat(descriptor).st_ino, generation
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
