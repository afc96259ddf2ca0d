import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.client.routing import Directory, LeaderView
from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, KeyspaceId, NodeId, ReplicaRole, Term
from isochrone.wire.session import KeyspaceRoute, LeaderChanged


def directory(*prefixes):
    return Directory(
        KeyspaceRoute(
            KeyspaceId(str(number)), prefix, GroupId(f"g{number}"), ((NodeId("n"), "n:1", "r", "z", "witness"),)
        )
        for number, prefix in enumerate(prefixes)
    )


def changed(term, leader):
    return LeaderChanged(GroupId("g"), Term(term), None if leader is None else NodeId(leader))


def test_a_key_is_found_by_its_prefix():
    routes = directory(b"b/", b"a/", b"c")
    assert routes.find(b"a/x").group == "g1"
    assert routes.find(b"b/").group == "g0"
    assert routes.find(b"c\xff\xff").group == "g2"
    assert [routes.find(key).prefix for key in (b"a/x", b"b/x", b"cx")] == [b"a/", b"b/", b"c"]


def test_the_empty_prefix_holds_every_key():
    assert directory(b"").find(b"\x00").group == "g0"


def test_a_key_in_no_keyspace_is_refused():
    for key in (b"", b"a", b"a0", b"bb", b"\xff"):
        with pytest.raises(InvalidRequest, match=r"known prefixes: 'a/', 'b/'$"):
            directory(b"b/", b"a/").find(key)
    with pytest.raises(InvalidRequest, match=r"known prefixes: none$"):
        directory().find(b"a")


@given(st.sets(st.binary(min_size=1, max_size=3), max_size=6), st.binary(max_size=5))
def test_finding_agrees_with_trying_every_prefix(candidates, key):
    prefixes = [p for p in candidates if not any(p != q and p.startswith(q) for q in candidates)]
    expected = [prefix for prefix in prefixes if key.startswith(prefix)]
    if expected:
        assert [directory(*prefixes).find(key).prefix] == expected
    else:
        with pytest.raises(InvalidRequest):
            directory(*prefixes).find(key)


def test_replicas_are_typed():
    [replica] = directory(b"a").replicas(GroupId("g0"))
    assert (replica.node, replica.address, replica.role) == ("n", "n:1", ReplicaRole.WITNESS)
    assert directory(b"a").replicas(GroupId("unknown")) == ()


@pytest.mark.parametrize(
    ("news", "expected"),
    [
        ([("a", 1, "a")], (1, "a")),
        ([("a", 1, "a"), ("b", 2, None)], (2, None)),
        ([("b", 2, None), ("a", 1, "a")], (2, None)),
        ([("b", 2, None), ("c", 2, "b")], (2, "b")),
        ([("b", 2, "b"), ("c", 2, None)], (2, "b")),
        ([("b", 2, "b"), ("b", 2, None)], (2, None)),
        ([("b", 2, "b"), ("b", 2, None), ("c", 2, "b")], (2, None)),
        ([("b", 2, "b"), ("b", 2, None), ("c", 3, "b")], (3, "b")),
        ([("c", 2, "a"), ("b", 2, "b")], (2, "b")),
        ([("b", 2, "b"), ("c", 2, "a")], (2, "b")),
        ([("c", 2, "a"), ("a", 2, None), ("b", 2, "b")], (2, "b")),
        ([("b", 2, "b"), ("b", 2, None), ("b", 2, "b")], (2, None)),
        ([("c", 2, "b"), ("b", 2, "b"), ("b", 2, None), ("c", 2, "b")], (2, None)),
        ([("c", 2, "b"), ("b", 2, None)], (2, None)),
        # What b said as a candidate comes after what others say of it as the leader.
        ([("c", 2, "b"), ("b", 2, None), ("b", 2, "b")], (2, "b")),
        ([("c", 2, "b"), ("b", 2, None), ("a", 2, "b")], (2, "b")),
    ],
)
def test_the_highest_term_wins_and_then_a_node_s_word_on_itself(news, expected):
    view = LeaderView()
    for source, term, leader in news:
        view = view.observe(changed(term, leader), NodeId(source))
    assert (view.term, view.leader) == expected


def test_old_news_leave_the_view_as_it_is():
    view = LeaderView().observe(changed(3, "a"), NodeId("a"))
    for news in (changed(3, "a"), changed(2, "b"), changed(3, None)):
        assert view.observe(news, NodeId("b")) is view


def route(prefix, version, *nodes):
    replicas = tuple((NodeId(node), f"{node}:1", "r", "z", "full") for node in nodes)
    return KeyspaceRoute(KeyspaceId(prefix), prefix.encode(), GroupId(f"g-{prefix}"), replicas, version)


def nodes_of(routes, key):
    return [replica.node for replica in routes.find(key).replicas]


def test_the_newest_replicas_of_each_group_are_kept_whoever_tells_in_whatever_order():
    first = (route("a", 0, "x"), route("b", 9, "x", "y"))
    second = (route("a", 4, "z"), route("b", 0, "x"))
    for told in ((first, second), (second, first), (first, second, first)):
        routes = Directory(())
        for each in told:
            routes = routes.updated(each)
        assert (nodes_of(routes, b"a"), nodes_of(routes, b"b")) == (["z"], ["x", "y"])


def test_a_keyspace_that_is_gone_or_new_is_as_told_last():
    routes = Directory([route("a", 5, "x")]).updated([route("b", 0, "y")])
    assert nodes_of(routes, b"b") == ["y"]
    with pytest.raises(InvalidRequest):
        routes.find(b"a")


@pytest.mark.parametrize(("group", "version", "expected"), [("g-a", 5, False), ("g-a", 6, True), ("g-b", 6, False)])
def test_only_news_of_newer_replicas_of_a_known_group_are_asked_for(group, version, expected):
    news = LeaderChanged(GroupId(group), Term(1), None, version)
    assert Directory([route("a", 5, "x")]).is_outdated(news) is expected
