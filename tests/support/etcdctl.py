"""Runs the steps of `etcdctl_steps` against a server, as a person at a shell would."""

import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, final

from etcdctl_steps import Begin, Ends, Run, Sees, Step

RUN_S_MAX = 10.0
COMMAND_S_MAX = 60.0
NAMES = re.compile(r"<([a-z]+)>|\.\.\.")


@final
class Etcdctl:
    """A shell in which etcdctl speaks to one server."""

    def __init__(self, endpoints: Sequence[str], words: Mapping[str, str]) -> None:
        """`words`: what some names of the templates stand for."""
        self._endpoints = ",".join(endpoints)
        self._words = dict(words)
        self._running: dict[str, _Background] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for background in self._running.values():
            background.end()

    def take(self, step: Step) -> None:
        """Take one step; an `AssertionError` tells what was printed instead."""
        match step:
            case Run():
                self._run(step)
            case Begin(name, command, stdin):
                self._running[name] = _Background(self._command(command), self._filled(stdin))
            case Sees(name, prints):
                background = self._running[name]
                _eventually(lambda: self._matches(prints, background.output()), RUN_S_MAX)
                self._check(step, prints, background.output())
            case Ends(name, prints, interrupted, status):
                background = self._running.pop(name)
                if interrupted:
                    background.process.send_signal(signal.SIGINT)
                _eventually(lambda: background.process.poll() is not None, RUN_S_MAX)
                output = background.end()
                assert background.process.returncode == status, f"{step} ended with {background.process.returncode}"
                self._check(step, prints, output)

    def _run(self, step: Run) -> None:
        done = subprocess.run(
            self._command(step.command),
            input=self._filled(step.stdin),
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        assert done.returncode == step.status, f"{step} ended with {done.returncode}: {done.stdout}{done.stderr}"
        self._check(step, step.prints, done.stdout)
        self._check(step, step.complains, done.stderr)

    def _command(self, template: str) -> list[str]:
        words = shlex.split(self._filled(template))
        # A flag shadows the environment's endpoints with an error, so they come by a flag, too, and only once.
        at = [] if any(word.startswith("--endpoints=") for word in words) else [f"--endpoints={self._endpoints}"]
        return ["etcdctl", *at, *words]

    def _filled(self, template: str) -> str:
        return NAMES.sub(lambda match: self._words[match[1]] if match[1] else match[0], template)

    def _check(self, step: Step, template: str, text: str) -> None:
        assert self._matches(template, text), f"{step}: found {text!r}; known words: {self._words}"

    def _matches(self, template: str, text: str) -> bool:
        """Whether a text fits a template; learns the template's new words if it does."""
        pattern, at, new = "", 0, []
        for match in NAMES.finditer(template):
            pattern += re.escape(template[at : match.start()])
            at = match.end()
            name = match[1]
            if name is None:
                pattern += ".*?"
            elif name in self._words:
                pattern += " *" + re.escape(self._words[name])  # ids are set to the right, and may begin with zeros
            elif name in new:
                pattern += f"(?P={name})"
            else:
                new.append(name)
                pattern += rf" *(?P<{name}>[^\s,]+?)"
        found = re.fullmatch(pattern + re.escape(template[at:]), text.removesuffix("\n"), re.DOTALL)
        if found is not None:
            self._words.update(found.groupdict())
        return found is not None


@final
class _Background:
    """A command that goes on, and what it has printed."""

    def __init__(self, command: Sequence[str], stdin: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self._lines: list[str] = []
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.flush()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def output(self) -> str:
        """Everything until now."""
        return "".join(self._lines)

    def end(self) -> str:
        """Kill the command unless it has ended; everything that it printed."""
        self.process.kill()
        self.process.wait()
        self._reader.join(RUN_S_MAX)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.output()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            self._lines.extend(stdout)


def _eventually(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
