"""The key-value command family: put, delete, compare-and-set."""

from isochrone.errors import InvalidRequest
from isochrone.ids import Revision
from isochrone.regions.state.model import TABLE_KEYS, ApplyContext, Handlers, KeyspaceState, encode_key_row
from isochrone.wire.commands import CommandResult, CompareAndSet, Delete, KeyValue, Operation, Put


def get(state: KeyspaceState, key: bytes) -> KeyValue | None:
    """The state of one key."""
    check_prefix(state, key)
    return state.keys.get(key)


def check_prefix(state: KeyspaceState, key: bytes) -> None:
    """Raise `InvalidRequest` for a key outside the keyspace."""
    if not key.startswith(state.prefix):
        raise InvalidRequest(f"key {key[:64]!r} does not lie in keyspace {state.keyspace!r}")


def _apply_put(state: KeyspaceState, operation: Operation, context: ApplyContext) -> CommandResult:
    assert isinstance(operation, Put)
    check_prefix(state, operation.key)
    _set(state, operation.key, operation.value, context)
    return CommandResult(True, context.revision, context.timestamp)


def _apply_delete(state: KeyspaceState, operation: Operation, context: ApplyContext) -> CommandResult:
    assert isinstance(operation, Delete)
    check_prefix(state, operation.key)
    removed = _remove(state, operation.key, context)
    return CommandResult(removed, context.revision, context.timestamp)


def _apply_compare_and_set(state: KeyspaceState, operation: Operation, context: ApplyContext) -> CommandResult:
    assert isinstance(operation, CompareAndSet)
    check_prefix(state, operation.key)
    held = state.keys.get(operation.key)
    value = held.value if held else None
    if value != operation.expected:
        return CommandResult(False, context.revision, context.timestamp, previous=value)
    if operation.value is not None:
        _set(state, operation.key, operation.value, context)
    else:
        _remove(state, operation.key, context)
    return CommandResult(True, context.revision, context.timestamp)


def _set(state: KeyspaceState, key: bytes, value: bytes, context: ApplyContext) -> None:
    revision = context.next_revision()
    held = state.keys.get(key)
    created = held.create_revision if held else revision
    version = held.version + 1 if held else 1
    item = KeyValue(key, value, created, Revision(revision), version, context.timestamp)
    state.keys[key] = item
    context.rows[state.keyspace, TABLE_KEYS, key] = encode_key_row(item)


def _remove(state: KeyspaceState, key: bytes, context: ApplyContext) -> bool:
    if state.keys.pop(key, None) is None:
        return False
    context.next_revision()
    context.rows[state.keyspace, TABLE_KEYS, key] = None
    return True


HANDLERS: Handlers = {Put: _apply_put, Delete: _apply_delete, CompareAndSet: _apply_compare_and_set}
"""This family, for registration."""
