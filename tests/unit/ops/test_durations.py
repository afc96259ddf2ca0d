"""Durations on the command line."""

import click
import pytest

from isochrone.ops.cli.durations import Duration, in_words


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), ("500ms", 0.5), ("0.25s", 0.25)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "0s", "0.0m", "-5s", "5 m", "5d", "nan", "infs", "1e3s", "5m30s", "٥s", ".5s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"90s|above 0"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (12, "12.0 s"), (303, "5 min 3 s"), (3599.6, "1 h 0 min"), (7440, "2 h 4 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
