"""How a scenario shows messages, entries, writes and replicas: short, stable text."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import get_args

from isochrone.ids import ReplicaRole
from isochrone.regions.raft.ready import Event
from isochrone.wire.configurations import decode_configuration
from isochrone.wire.messages import (
    MAJORITY,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Member,
    QuorumSizes,
    RaftMessage,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

_SHOWN_ENTRIES = 6
_SHOWN_DATA = 24


def entry_text(entry: Entry) -> str:
    """`index/term` and what the entry holds."""
    match entry.kind:
        case EntryKind.COMMANDS:
            data = entry.data.decode()
            shown = data if len(data) <= _SHOWN_DATA else f"{data[:8]}... {len(data)} bytes"
            return f'{entry.index}/{entry.term} "{shown}"'
        case EntryKind.CONFIGURATION:
            return f"{entry.index}/{entry.term} {configuration_text(decode_configuration(entry.data))}"
        case _:
            return f"{entry.index}/{entry.term} {entry.kind.name.lower()}"


def configuration_text(configuration: Configuration) -> str:
    """Who belongs to a group: voters by name, others with their role; a joint one with both halves."""
    members = _half_text(configuration.members, configuration.quorums)
    if not configuration.joint:
        return f"<{members}>"
    how = "" if configuration.auto_leave else " until told"
    return f"<{members} from {_half_text(configuration.outgoing, configuration.outgoing_quorums)}{how}>"


def _half_text(members: Sequence[Member], sizes: QuorumSizes) -> str:
    named = [m.node if m.role is ReplicaRole.FULL else f"{m.node}:{m.role}" for m in members]
    quorums = f" commit={sizes.commit} election={sizes.election}" if sizes != MAJORITY else ""
    return " ".join(named) + quorums


def entries_text(entries: Sequence[Entry]) -> str:
    """All entries, or the first and the last of many."""
    if len(entries) <= _SHOWN_ENTRIES:
        return f"[{', '.join(map(entry_text, entries))}]"
    return f"[{entry_text(entries[0])}, ... {len(entries) - 2} more ..., {entry_text(entries[-1])}]"


def message_text(message: RaftMessage) -> str:
    """A message on one line."""
    match message:
        case VoteRequest():
            flags = " pre" * message.pre + " transfer" * message.transfer
            return f"VoteRequest term={message.term} log={message.last_index}/{message.last_term}{flags}"
        case VoteResponse():
            outcome = "granted" if message.granted else "refused"
            return f"VoteResponse term={message.term} {outcome}{' pre' * message.pre}"
        case AppendRequest():
            after = f"after={message.previous_index}/{message.previous_term}"
            dropped = f" truncate={message.truncate_to}" if message.truncate_to else ""
            return (
                f"Append term={message.term} {after} commit={message.commit}{dropped} {entries_text(message.entries)}"
            )
        case AppendResponse() if message.accepted:
            return f"AppendResponse term={message.term} accepted={message.index}"
        case AppendResponse():
            hint = f"{message.index}/{message.hint_term}"
            return f"AppendResponse term={message.term} refused={message.rejected_index} hint={hint}"
        case Heartbeat():
            dropped = f" truncate={message.truncate_to}" if message.truncate_to else ""
            return f"Heartbeat term={message.term} commit={message.commit} round={message.round}{dropped}"
        case HeartbeatResponse():
            return f"HeartbeatResponse term={message.term} round={message.round}"
        case TimeoutNow():
            return f"TimeoutNow term={message.term}"
        case InstallSnapshot():
            return f"InstallSnapshot term={message.term} {chunk_text(message.chunk)}"
        case SnapshotResponse():
            return f"SnapshotResponse term={message.term} snapshot={message.attempt} held={message.position}"


def chunk_text(chunk: SnapshotChunk) -> str:
    """A piece of a snapshot: attempt, the index that it reaches, the bytes before it and in it."""
    name = f"snapshot={chunk.id.term}.{chunk.id.attempt} upto={chunk.id.index}/{chunk.id.index_term}"
    if not chunk.with_state:
        return f"{name} without state"
    return f"{name} bytes={chunk.position}..{chunk.end}{' last' * chunk.last}"


def kind_of(message: RaftMessage) -> str:
    """The name by which filters and traces call a kind of message."""
    return "Append" if isinstance(message, AppendRequest) else type(message).__name__


KINDS = tuple("Append" if kind is AppendRequest else kind.__name__ for kind in get_args(RaftMessage))


def event_text(event: Event) -> str:
    """An event of the core on one line."""
    peer = f" peer={event.peer}" if event.peer is not None else ""
    return f"{event.name} term={event.term} index={event.index}{peer}"


def hard_state_text(state: HardState) -> str:
    """A hard state on one line."""
    return f"term={state.term} vote={state.vote or 'none'} commit={state.commit}"


def unknown_parts(thing: object, known: Sequence[str]) -> list[str]:
    """Fields of a dataclass that hold something and are not among `known`: the trace would hide them."""
    assert is_dataclass(thing)
    return [field.name for field in fields(thing) if field.name not in known and getattr(thing, field.name)]
