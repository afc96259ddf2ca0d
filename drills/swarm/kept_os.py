"""Case files: read from and written to disk.

A kept run is the object that `isochrone sim run --json` prints, with the command that replays it. It holds options and
schedule, so it is a case file itself.
"""

import json
import shlex
from pathlib import Path

from isochrone.drills.sim.case import Case, SimResult, case_from_text, result_to_plain
from isochrone.drills.sim.run_os import check_case
from isochrone.errors import InvalidRequest


def read_case(file: Path) -> Case:
    """Read a case file.

    Raises:
        InvalidRequest: it cannot be read, is no case, or cannot run.
    """
    try:
        case = case_from_text(file.read_text("utf-8"))
        check_case(case.options, case.schedule)
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}; allowed: a case file") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file}: found {error.object[:16]!r}; allowed: a case file") from error
    except InvalidRequest as error:
        raise InvalidRequest(f"{file}: {error}") from error
    return case


def write_case(file: Path, result: SimResult) -> None:
    """Keep a run. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {"replay": replay_command(file), **result_to_plain(result)}
    file.write_text(json.dumps(plain, indent=1) + "\n", "utf-8")


def replay_command(file: Path) -> str:
    """The command that replays a case file."""
    return f"isochrone sim run --case {shlex.quote(str(file))}"
