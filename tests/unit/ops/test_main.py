"""The command line as a whole: help without weight, errors as one sentence and a status."""

import errno
import io
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from isochrone import __version__
from isochrone.errors import Indeterminate, InvalidRequest, IsochroneError, LeaseNotFound, StorageError, Unavailable
from isochrone.ops.cli import main as main_module
from isochrone.ops.cli.main import cli, main

COMMANDS = tuple(main_module._COMMANDS)


def test_help_names_every_command_and_imports_none() -> None:
    program = (
        "import sys\nfrom isochrone.ops.cli.main import main\nsys.argv = ['isochrone', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'ray', 'grpc', 'pydantic', 'rich', 'lmdb', 'isochrone.node', 'isochrone.drills'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"isochrone, version {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"isochrone {command}" in result.output
    context = click.Context(cli)
    group = cli.get_command(context, command)
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        told = CliRunner().invoke(cli, [command, name, "--help"]).output
        assert f"    isochrone {command} {name}" in told
        assert f"  {name}  " in result.output
    assert "..." not in result.output.partition("Commands:")[2], "a command's summary is cut off"


def test_an_example_of_several_lines_keeps_its_lines() -> None:
    told = CliRunner().invoke(cli, ["kv", "txn", "--help"]).output
    assert "    isochrone kv txn <<END\n" in told and "    get us/orders/1\n    END\n" in told


@pytest.mark.parametrize("arguments", [["kv", "put", "us/a"], ["kv", "txn"]])
def test_a_closed_standard_input_is_bad_input(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("sys.argv", ["isochrone", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "standard input, which is closed" in capsys.readouterr().err


def test_a_transaction_that_is_no_text_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n\nput us/a \xff\n")))
    monkeypatch.setattr("sys.argv", ["isochrone", "kv", "txn"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (2, "the transaction is not UTF-8 text\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["kv", "get", "us/a", "--endpoints", "localhost"], "'localhost' is no address; write HOST:PORT"),
        (
            ["lock", "run", "us/a", "--grace", "20s", "--", "true"],
            "--grace is 20.0 s; at most half of --ttl is allowed",
        ),
    ],
)
def test_what_could_never_work_is_refused_without_asking_the_cluster(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["isochrone", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and text in capsys.readouterr().err


def test_ctrl_c_before_a_command_looks_after_signals_ends_it_as_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "import_module", interrupted)
    assert CliRunner().invoke(cli, ["status"]).exit_code == 130


def test_an_unknown_command_is_bad_input() -> None:
    assert CliRunner().invoke(cli, ["levitate"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InvalidRequest("f: a: found 1; allowed: 2\nf: b: found 3; allowed: 4"), 2, None),
        (StorageError("the disk is full"), 1, "isochrone: the disk is full"),
        (Unavailable("nothing runs"), 1, "isochrone: nothing runs"),
        (
            Indeterminate("who knows"),
            1,
            (
                "isochrone: who knows\n"
                "If it was a write, it may have been applied, or may yet be: look before you try again."
            ),
        ),
        (LeaseNotFound("no lease"), 2, "no lease\n`isochrone lease list` shows the leases that live."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "isochrone: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 1, "isochrone: f: Permission denied"),
    ],
)
def test_errors_become_sentences_and_statuses(
    error: IsochroneError | OSError,
    status: int,
    text: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{text or error}\n")
