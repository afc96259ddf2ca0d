"""The disk of one replica in `raft_cluster`: what a store would hold, with its own checks of what is written."""

from dataclasses import dataclass, field, replace

import google_crc32c
import msgpack

from isochrone.ids import LogIndex, NodeId, Term, Timestamp
from isochrone.ports import StagedSnapshot, StoredGroup, TermRun
from isochrone.regions.raft.ready import AppendWork
from isochrone.regions.storage.log_bounds import logged_configuration
from isochrone.wire.configurations import decode_configuration
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, SnapshotChunk

Rows = list[tuple[int, int, bytes]]
"""The state of a replica: index, term and data of everything applied."""

NO_TIMESTAMP = Timestamp(0)


def encode_state(rows: Rows) -> bytes:
    """A piece of a state as a snapshot carries it."""
    return b"".join(msgpack.packb(row) for row in rows)


def decode_state(data: bytes) -> Rows:
    """Back from the joined pieces."""
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(data)
    return list(unpacker)


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    truncated_index: LogIndex = LogIndex(0)
    truncated_term: Term = Term(0)
    entries: list[Entry] = field(default_factory=list)
    base: Configuration | None = None
    """As of the truncation point; None: the cluster's first."""
    base_timestamp: Timestamp = NO_TIMESTAMP
    rows: Rows = field(default_factory=list)
    """The state: what was applied, in order."""
    staged: StagedSnapshot | None = None
    staged_data: bytes = b""

    def write(self, work: AppendWork, rows: Rows | None) -> None:
        """Make a write durable, and `rows` with it: what had been applied when it was handed out; None: no news."""
        if rows is not None:
            self.rows = rows
        if work.discard_staged:
            self.staged = None
        if work.chunk is not None:
            self._stage(work.chunk)
        if work.hard_state is not None:
            assert work.hard_state.term >= self.hard_state.term, "a stored term fell"
            if work.hard_state.term == self.hard_state.term and self.hard_state.vote is not None:
                assert work.hard_state.vote == self.hard_state.vote, "a stored vote changed within its term"
            self.hard_state = work.hard_state
        if work.entries:
            keep = work.entries[0].index - self.truncated_index - 1
            assert 0 <= keep <= len(self.entries), "a hole in the stored log"
            del self.entries[keep:]
            self.entries.extend(work.entries)
        if work.truncate_to is not None:
            count = work.truncate_to - self.truncated_index
            self.truncated_term = self.entries[count - 1].term
            self.truncated_index = work.truncate_to
            for entry in self.entries[:count]:
                if entry.kind is EntryKind.CONFIGURATION:
                    self.base = decode_configuration(entry.data)
            del self.entries[:count]
            assert not self.rows or self.truncated_index <= len(self.rows), "entries are dropped that no row reflects"

    def _stage(self, chunk: SnapshotChunk) -> None:
        if chunk.position == 0:
            self.staged, self.staged_data = StagedSnapshot(chunk.id, 0, 0, 0), b""
        staged = self.staged
        assert staged is not None and (staged.id, staged.position) == (chunk.id, chunk.position), "a chunk is missing"
        self.staged_data += chunk.data
        assert google_crc32c.value(self.staged_data) == chunk.checksum, "chunks of two snapshots were mixed"
        self.staged = replace(staged, position=chunk.end, checksum=chunk.checksum)
        if chunk.last:
            self._switch(chunk)

    def _switch(self, chunk: SnapshotChunk) -> None:
        index = chunk.id.index
        assert index > self.hard_state.commit, "a snapshot brings nothing new"
        kept = self.truncated_index < index and self.term_at(index) == chunk.id.index_term
        self.entries = self.entries[index - self.truncated_index :] if kept else []
        self.truncated_index, self.truncated_term = index, chunk.id.index_term
        self.base, self.base_timestamp = chunk.configuration, max(self.base_timestamp, chunk.timestamp)
        if chunk.with_state:
            self.rows = decode_state(self.staged_data)
            assert len(self.rows) == index, "the state is not that of the snapshot's index"
        self.staged = None

    @property
    def last_index(self) -> int:
        return self.truncated_index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        if index == self.truncated_index:
            return self.truncated_term
        held = self.truncated_index < index <= self.last_index
        return self.entries[index - self.truncated_index - 1].term if held else None

    def load(self, configuration: Configuration) -> StoredGroup:
        runs: list[TermRun] = []
        for entry in self.entries:
            if not runs or runs[-1].term != entry.term:
                runs.append(TermRun(entry.index, entry.term))
        return StoredGroup(
            configuration=self.base or configuration,
            hard_state=self.hard_state,
            truncated_index=self.truncated_index,
            truncated_term=self.truncated_term,
            last_index=LogIndex(self.last_index),
            term_runs=tuple(runs),
            applied=LogIndex(len(self.rows)),
            configurations=tuple(
                logged_configuration(entry) for entry in self.entries if entry.kind is EntryKind.CONFIGURATION
            ),
            entry_bytes=[len(entry.encoded) for entry in self.entries],
            base_timestamp=self.base_timestamp,
            staged=self.staged,
        )


def disk_with(*terms: int, term: int = 0, vote: str | None = None, commit: int = 0) -> Disk:
    """A disk whose log holds entries of these terms. Equal index and term means the same entry."""
    entries = [
        make_entry(
            index=LogIndex(index),
            term=Term(entry_term),
            kind=EntryKind.COMMANDS,
            timestamp=Timestamp(index),
            data=b"%d/%d" % (index, entry_term),
        )
        for index, entry_term in enumerate(terms, start=1)
    ]
    hard_state = HardState(Term(max(term, *terms, 0)), NodeId(vote) if vote else None, LogIndex(commit))
    return Disk(hard_state, entries=entries)
