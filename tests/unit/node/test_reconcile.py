"""The supervisor's decisions, without Ray."""

import pytest

from isochrone.ids import NS_PER_S, Nanos, NodeId
from isochrone.node.reconcile import (
    BACKOFF_FIRST,
    BACKOFF_MAX,
    STABLE_AFTER,
    Kill,
    NodeView,
    Phase,
    Start,
    Target,
    backoff,
    encode_target,
    on_ended,
    on_killing,
    on_running,
    on_starting,
    parse_target,
    plan,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
TARGET = Target((A, B, C))
NOW = Nanos(1_000 * NS_PER_S)


def test_everything_absent_is_started_in_order() -> None:
    assert plan(TARGET, {}, NOW).actions == (Start(A), Start(B), Start(C))


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING, Phase.KILLING])
def test_a_node_with_a_process_is_never_started_again(phase: Phase) -> None:
    views = {node: NodeView(phase) for node in TARGET.nodes}
    assert plan(TARGET, views, NOW).actions == ()
    assert plan(TARGET, views, NOW).wake_at is None


@pytest.mark.parametrize(
    ("phase", "actions"),
    [(Phase.ABSENT, ()), (Phase.STARTING, (Kill(B),)), (Phase.RUNNING, (Kill(B),)), (Phase.KILLING, ())],
)
def test_a_held_node_is_killed_once_and_not_started(phase: Phase, actions: tuple[Kill, ...]) -> None:
    views = {A: NodeView(Phase.RUNNING), B: NodeView(phase), C: NodeView(Phase.RUNNING)}
    assert plan(TARGET.hold(B), views, NOW).actions == actions


def test_a_released_node_is_started() -> None:
    views = {A: NodeView(Phase.RUNNING), B: NodeView(), C: NodeView(Phase.RUNNING)}
    assert plan(TARGET.hold(B).release(B), views, NOW).actions == (Start(B),)


def test_hold_and_release_are_idempotent() -> None:
    assert TARGET.hold(B).hold(B) == TARGET.hold(B)
    assert TARGET.hold(B).release(B).release(B) == TARGET


def test_a_node_of_another_region_is_refused() -> None:
    with pytest.raises(KeyError, match="x is not one of a, b, c"):
        TARGET.hold(NodeId("x"))
    with pytest.raises(KeyError, match="x is not one of a, b, c"):
        TARGET.release(NodeId("x"))


def test_the_first_restart_comes_at_once_and_later_ones_wait_longer_up_to_a_bound() -> None:
    pauses = [backoff(failures) for failures in range(1, 12)]
    assert pauses[:4] == [0, BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST]
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX
    assert backoff(10_000) == BACKOFF_MAX


def test_a_failing_node_waits_for_its_time_and_the_loop_wakes_then() -> None:
    view = NodeView(Phase.ABSENT)
    for _ in range(3):
        view = on_ended(on_starting(view), NOW, "no")
    views = {A: view, B: NodeView(Phase.RUNNING), C: NodeView(Phase.RUNNING)}
    wake_at = NOW + 2 * BACKOFF_FIRST
    assert plan(TARGET, views, NOW).actions == ()
    assert plan(TARGET, views, NOW).wake_at == wake_at
    assert plan(TARGET, views, Nanos(wake_at)).actions == (Start(A),)


def test_the_loop_wakes_for_the_earliest_node() -> None:
    views = {A: NodeView(start_at=Nanos(NOW + 9)), B: NodeView(start_at=Nanos(NOW + 5)), C: NodeView(Phase.RUNNING)}
    assert plan(TARGET, views, NOW).wake_at == NOW + 5


def test_a_node_that_ran_long_is_forgiven_its_failures() -> None:
    failed = on_ended(on_starting(on_ended(on_starting(NodeView()), NOW, "no")), NOW, "no")
    assert failed.failures == 2
    running = on_running(on_starting(failed), NOW)
    assert on_ended(running, Nanos(NOW + STABLE_AFTER - 1), "died").failures == 3
    assert on_ended(running, Nanos(NOW + STABLE_AFTER), "died").failures == 1


def test_a_death_that_was_asked_for_is_no_failure() -> None:
    running = on_running(on_starting(NodeView()), NOW)
    ended = on_ended(on_killing(running), NOW, "killed")
    assert (ended.phase, ended.failures, ended.start_at) == (Phase.ABSENT, 0, NOW)


def test_a_node_killed_while_it_starts_does_not_become_running() -> None:
    assert on_running(on_killing(on_starting(NodeView())), NOW).phase is Phase.KILLING


def test_why_a_node_ended_is_kept() -> None:
    assert on_ended(on_starting(NodeView()), NOW, "disk is full").last_error == "disk is full"


def test_the_target_survives_its_file() -> None:
    target = TARGET.hold(C).hold(A)
    assert parse_target(encode_target(target)) == target
