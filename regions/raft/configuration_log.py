"""The configurations in a replica's log, and what follows from the one in force.

A configuration is in force from the moment its entry is in the log, on leader and followers alike; when the entry is
replaced, the one before it is in force again. (Applying configurations only when they are committed lets two obsolete
majorities elect two leaders: etcd-io/raft#469.)

Invariant: `state.configurations` begins with the configuration as of the truncation point, and holds that of every
entry above it.
"""

from collections.abc import Sequence

from isochrone.ids import LogIndex
from isochrone.ports import LoggedConfiguration
from isochrone.probes import probe
from isochrone.regions.raft.changes import all_members, full_voters, role_or_former, standing, votes_as
from isochrone.regions.raft.quorum import voter_halves
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import RaftState
from isochrone.wire.configurations import decode_configuration
from isochrone.wire.messages import Configuration, Entry, EntryKind


def log_changed(state: RaftState, entries: Sequence[Entry]) -> None:
    """The log was cut before the first of `entries`, and they were appended."""
    held = state.configurations
    kept = [logged for logged in held if logged.index < entries[0].index]
    new = [
        LoggedConfiguration(entry.index, decode_configuration(entry.data))
        for entry in entries
        if entry.kind is EntryKind.CONFIGURATION
    ]
    if len(kept) == len(held) and not new:
        return
    if len(kept) < len(held):
        probe("raft.configuration_rolled_back")
        state.event(EventName.CONFIGURATION_ROLLED_BACK, held[-1].index)
    state.configurations = kept + new
    _put_in_force(state)


def commit_advanced(state: RaftState, before: LogIndex) -> None:
    """The commit index has risen: a configuration that removes this replica may have become final."""
    if before < state.configurations[-1].index <= state.commit:
        _settle_standing(state)


def prefix_dropped(state: RaftState) -> None:
    """The log was truncated."""
    while len(state.configurations) > 1 and state.configurations[1].index <= state.log.truncated_index:
        del state.configurations[0]


def snapshot_installed(state: RaftState, index: LogIndex, configuration: Configuration, *, keeps_suffix: bool) -> None:
    """A snapshot has taken the place of the log up to `index`, and of the rest unless that is kept."""
    later = [logged for logged in state.configurations if logged.index > index] if keeps_suffix else []
    state.configurations = [LoggedConfiguration(index, configuration), *later]
    _put_in_force(state)


def configuration_at(state: RaftState, index: LogIndex) -> Configuration:
    """The configuration as of an entry that is not below the truncation point."""
    return [logged for logged in state.configurations if logged.index <= index][-1].configuration


def last_committed(state: RaftState) -> LoggedConfiguration:
    """The newest configuration that is known to be committed, and an index as of which it holds."""
    return [logged for logged in state.configurations if logged.index <= state.commit][-1]


def is_committed(state: RaftState) -> bool:
    """Whether the configuration in force is known to be committed."""
    return state.configurations[-1].index <= state.commit


def _put_in_force(state: RaftState) -> None:
    state.configuration = state.configurations[-1].configuration
    state.members = all_members(state.configuration)
    state.halves = voter_halves(state.configuration)
    _settle_standing(state)
    state.event(EventName.CONFIGURATION_CHANGED, state.configurations[-1].index)


def _settle_standing(state: RaftState) -> None:
    role = standing(state.configurations, state.node, state.store, state.commit)
    state.role = role_or_former(role, keeps_state=state.keeps_state)
    state.may_campaign = votes_as(role)
    state.full_voters = full_voters(state.configurations, state.commit)
