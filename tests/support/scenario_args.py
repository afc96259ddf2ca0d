"""The words and options of one command of the scenario language."""

from dataclasses import fields
from typing import Any

from scenario_format import Command
from scenario_site import Site
from scenario_world import World

from isochrone.ids import NodeId
from isochrone.regions.raft.config import RaftConfig

PREFERRED = "preferred_leaders"
_RAFT_SETTINGS = tuple(
    f.name for f in fields(RaftConfig) if f.name not in ("group", "node", "heartbeat_ns", "election_timeout_ns")
)


class Args:
    """What a command is given, checked as it is taken."""

    def __init__(self, command: Command, world: World) -> None:
        self.command = command
        self._world = world
        self._words = list(command.words)
        self._options = dict(command.options)

    def word(self, what: str) -> str:
        """The next word."""
        if not self._words:
            raise self.command.error(f"{self.command.name} needs {what}")
        return self._words.pop(0)

    def words(self) -> list[str]:
        """All words that are left."""
        words, self._words = self._words, []
        return words

    def site(self) -> Site:
        """The node named by the next word."""
        return self.named(self.word("a node"))

    def sites(self) -> list[Site]:
        """The nodes named by the words that are left; all nodes if there are none."""
        return [self.named(name) for name in self.words()] or list(self._world.sites.values())

    def live(self) -> Site:
        """The node named by the next word, which must be up."""
        site = self.site()
        if site.core is None:
            raise self.command.error(f"{site.name} is down")
        return site

    def named(self, name: str) -> Site:
        """A node."""
        site = self._world.sites.get(NodeId(name))
        if site is None:
            raise self.command.error(f"there is no node {name}")
        return site

    def number(self, key: str, default: int | None = None) -> int:
        """An option that is a number, or the next word if there is no such option and no default."""
        values = self._options.pop(key, None)
        if values is None and default is not None:
            return default
        return self.to_number(values[0] if values else self.word(f"a number of {key}"))

    def to_number(self, text: str) -> int:
        """A number that is not negative."""
        if not text.isdecimal():
            raise self.command.error(f"not a number: {text}")
        return int(text)

    def listed(self, key: str) -> tuple[str, ...]:
        """An option that is a list of words; empty if it is not given."""
        return self._options.pop(key, ())

    def raft_settings(self) -> dict[str, Any]:
        """Settings of `RaftConfig` by their own names; a switch is 0 or 1."""
        numbers = {key: self.number(key) for key in _RAFT_SETTINGS if key in self._options and key != PREFERRED}
        preferred = {PREFERRED: tuple(map(NodeId, self.listed(PREFERRED)))} if PREFERRED in self._options else {}
        return numbers | preferred

    def finish(self) -> None:
        """Refuse what nobody took."""
        if left := [*self._words, *self._options]:
            raise self.command.error(f"{self.command.name} does not take {', '.join(left)}")
