"""Marks count only while somebody counts."""

from isochrone import probes


def test_counts_between_start_and_stop() -> None:
    probes.probe("a.before")
    probes.start_counting()
    probes.probe("a.b")
    probes.probe("a.b")
    assert probes.stop_counting() == {"a.b": 2}
    probes.probe("a.b")
    assert probes.stop_counting() == {}


def test_lists_the_marks_of_sources() -> None:
    sources = ['probe("b.two")\nprobe(\n    "a.one"\n)', 'if x:\n    probe("b.two")', "probes.probe(name)"]
    assert probes.marks_in(sources) == ["a.one", "b.two"]
