"""The command line: `isochrone COMMAND`. Maps errors to one clear sentence and an exit status.

Commands are imported when they are run, so `isochrone --help` is quick and a command that needs no Ray does not
import it.

Exit status: 0 done, 1 failed, 2 bad input; drills have more (`isochrone drill --help`).
"""

import signal
import sys
from importlib import import_module

import click

from isochrone import __version__

FAILED_EXIT_STATUS = 1
BAD_INPUT_EXIT_STATUS = 2

_COMMANDS = {
    "up": ("isochrone.ops.cli.cluster", "up_command", "Bring a deployment up on this machine, on a Ray of its own."),
    "status": ("isochrone.ops.cli.cluster", "status_command", "Show every replica: leader, term, commit, lag."),
    "down": ("isochrone.ops.cli.cluster", "down_command", "Take the deployment down; its data stays."),
    "member": ("isochrone.ops.cli.member", "member_group", "Show and change who belongs to a group."),
    "move-leader": ("isochrone.ops.cli.member", "move_leader_command", "Hand a group's leadership to another node."),
    "kv": ("isochrone.ops.cli.kv", "kv_group", "Read and write keys."),
    "watch": ("isochrone.ops.cli.watch", "watch_command", "Print what is written, as it is written."),
    "lease": ("isochrone.ops.cli.lease", "lease_group", "Make, renew, show and end leases."),
    "lock": ("isochrone.ops.cli.lock", "lock_group", "Run a command while a lock is held."),
    "elect": ("isochrone.ops.cli.lock", "elect_command", "Run for leader, or observe who leads."),
    "drill": ("isochrone.ops.cli.drill", "drill_group", "Break a deployment on purpose and judge what happens."),
    "sim": ("isochrone.ops.cli.sim", "sim_group", "Run the production code in a simulated world, from a seed."),
    "topology": ("isochrone.ops.cli.topology", "topology_group", "Check and explain topology files."),
    "bootstrap": ("isochrone.ops.cli.node", "bootstrap_command", "Make the stores of a cluster that runs without Ray."),
    "node": ("isochrone.ops.cli.node", "node_command", "Run one node as a plain process, without Ray."),
}


_NEXT = {
    "Indeterminate": "If it was a write, it may have been applied, or may yet be: look before you try again.",
    "LeaseLost": "What was done under it was broken off, and may be half done.",
    "LeaseNotFound": "`isochrone lease list` shows the leases that live.",
    "RevisionCompacted": "Without --rev it shows the present state.",
    "LockHeld": "`isochrone lock show NAME` tells who holds it.",
}
"""What to do next, by the class of the error, or one that it is derived from."""


def _next_steps(error: Exception) -> list[str]:
    return [_NEXT[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in _NEXT][:1]


class _LazyGroup(click.Group):
    """A group whose commands are imported when one is run, not to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # Before the command itself looks after signals, as while it is imported.
            ctx.exit(128 + signal.SIGINT)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="isochrone")
def cli() -> None:
    """Multi-region coordination: Raft groups across zones and regions, and drills that prove what they survive.

    \b
    Examples:
      isochrone up deploy/topologies/three-regions.yaml
      isochrone status
      isochrone down
    """


def main() -> None:
    """Entry point of the program `isochrone`."""
    from isochrone.errors import InvalidRequest, IsochroneError

    try:
        cli.main(prog_name="isochrone")
    except InvalidRequest as error:
        # A wrong file has one line per fault, each with its file and key.
        click.echo("\n".join([str(error), *_next_steps(error)]), err=True)
        sys.exit(BAD_INPUT_EXIT_STATUS)
    except IsochroneError as error:
        click.echo("\n".join([f"isochrone: {error}", *_next_steps(error)]), err=True)
        sys.exit(FAILED_EXIT_STATUS)
    except OSError as error:
        # A disk that is full, a file that may not be written: whatever no command knows more of.
        about = f"{error.filename}: " if error.filename else ""
        click.echo(f"isochrone: {about}{error.strerror or error}", err=True)
        sys.exit(FAILED_EXIT_STATUS)


if __name__ == "__main__":
    main()
