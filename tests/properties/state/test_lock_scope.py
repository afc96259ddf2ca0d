"""The scope of a lock is a property of its name: no name has two owners, be they regional or global, or both."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from state_log import StateLog

from isochrone.client.routing import Directory
from isochrone.errors import InvalidRequest, IsochroneError
from isochrone.ids import GroupId, KeyspaceId
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.locks import answer_wait
from isochrone.regions.state.machine import GroupState
from isochrone.topology.resolve import Faults, check_prefixes
from isochrone.topology.schema import KeyspaceSection
from isochrone.wire.commands import Command, encode_command
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire, LockQuery, LockRelease, LockWait, LockWithdraw
from isochrone.wire.messages import EntryKind
from isochrone.wire.session import KeyspaceRoute

SCOPES = (GroupId("us.zone"), GroupId("eu.zone"), GroupId("us.region"))
"""Two regional owners and a global one."""
WORDS = st.text("ab/", min_size=1, max_size=4)
KEYSPACES = st.dictionaries(WORDS, st.sampled_from(SCOPES), min_size=1, max_size=6)


def groups_of(keyspaces: dict[str, GroupId]) -> dict[GroupId, StateLog]:
    """The state of every group that has a keyspace, with lease 1 in each."""
    logs = {}
    for scope in SCOPES:
        mine = [KeyspaceId(prefix) for prefix, group in keyspaces.items() if group == scope]
        if mine:
            logs[scope] = StateLog(*mine)
            logs[scope].state = GroupState(scope, mine, HANDLERS)
            grant = encode_command(Command(0, 0, 0, LeaseGrant(1, 60_000)))
            logs[scope].log(EntryKind.COMMANDS, [grant], mine[0])
    return logs


def owner_of(keyspaces: dict[str, GroupId], name: str) -> GroupId | None:
    """By the directory that clients route by."""
    routes = [KeyspaceRoute(KeyspaceId(prefix), prefix.encode(), group, ()) for prefix, group in keyspaces.items()]
    try:
        return Directory(routes).find(name.encode()).group
    except InvalidRequest:
        return None


@settings(max_examples=300, deadline=None)
@given(KEYSPACES, st.lists(WORDS, min_size=1, max_size=6))
def test_no_name_is_a_lock_of_two_owners(keyspaces: dict[str, GroupId], names: list[str]) -> None:
    """In whatever a topology may hold: of all groups that are asked, the one that the directory names grants."""
    sections = [KeyspaceSection(prefix=prefix, home="us", survive="zone") for prefix in keyspaces]
    faults = Faults("file", [])
    check_prefixes(list(enumerate(sections)), faults)
    assume(not faults.problems)
    logs = groups_of(keyspaces)
    for number, name in enumerate([*names, *[prefix + name for prefix in keyspaces for name in names]], 1):
        granted = []
        for scope, log in logs.items():
            acquire = encode_command(Command(0, 0, 0, LockAcquire(name.encode(), 1, number)))
            (outcome,) = log.log(EntryKind.COMMANDS, [acquire], log.keyspaces[0])
            log.now_ms += 1
            if isinstance(outcome, IsochroneError):
                assert isinstance(outcome, InvalidRequest)
                assert name.encode() not in log.state.data.locks.locks
            else:
                granted.append(scope)
        owner = owner_of(keyspaces, name)
        assert granted == ([] if owner is None else [owner])


@pytest.mark.parametrize(("first", "second"), [("a/", "a/b/"), ("a/b/", "a/"), ("a/", "a/"), ("a", "ab/")])
def test_no_topology_gives_a_name_to_two_keyspaces(first: str, second: str) -> None:
    sections = [
        KeyspaceSection(prefix=first, home="us", survive="zone"),
        KeyspaceSection(prefix=second, home="us", survive="region"),
    ]
    faults = Faults("file", [])
    check_prefixes(list(enumerate(sections)), faults)
    assert [problem.path for problem in faults.problems] == ["keyspaces[1].prefix"]


@pytest.mark.parametrize("name", [b"global/l", b"k", b"l/l", b"zz"])
def test_a_group_says_nothing_of_locks_that_are_not_its_own(name: bytes) -> None:
    """Not even that they are free."""
    log = StateLog()
    log.do(LeaseGrant(1, 60_000))
    for operation in (LockAcquire(name, 1, 1), LockRelease(name, 1), LockWithdraw(name, 1, 1)):
        with pytest.raises(InvalidRequest, match="lies in no keyspace of group g"):
            log.do(operation)
    with pytest.raises(InvalidRequest, match="lies in no keyspace of group g"):
        log.ask(LockQuery(name))
    with pytest.raises(InvalidRequest, match="lies in no keyspace of group g"):
        answer_wait(log.state.data, LockWait(name, 1, 1))
