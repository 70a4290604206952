"""`cs-ingest`. Data goes to standard output, talk to standard error; 0 done, 1 failed, 2 wrong usage.

A command is imported when it is run, and what is slow within it when it is needed: `--help` must
feel immediate.
"""

import sys
from importlib import import_module
from typing import Any

import click

from customersignal_ingest.domain.errors import IngestError
from customersignal_ingest.version import __version__

__all__ = ["COMMANDS", "commands", "main"]

COMMANDS = {
    "dev": ("dev", "Run the service on embedded stores in ./data."),
    "serve": ("service", "Run the service, by settings, until SIGTERM."),
    "config": ("service", "Show every setting in force and where it came from."),
    "probe": ("service", "Ask the local service whether it is ready."),
    "check": ("service", "Open every component and ask it; store nothing."),
    "migrate": ("keys", "Bring the key database to the newest schema."),
    "tenants": ("keys", "Tenants, whom keys speak for."),
    "keys": ("keys", "API keys: made, listed, revoked, replaced."),
    "topic": ("topic", "The Kafka topic that events go to."),
    "tail": ("records", "Print stored events, oldest first."),
    "send": ("records", "Store the events of an NDJSON file, or of standard input."),
    "verify": ("verify", "Hold journals of clients against what is stored."),
    "canary": ("canary", "Send marked events to a service, and verify every answer."),
}
"""Every command: the module that has it, and what it does."""

_INTERRUPTED = 130
_LIBRARIES = ("httptools", "litestar", "aiokafka", "sqlalchemy", "asyncpg")


class _Commands(click.Group):
    """Imports a command when it is asked for, and turns every error into one clear line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"{__name__}.{COMMANDS[cmd_name][0]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except Exception as error:  # noqa: BLE001  Whatever it is, people get one line.
            _explain(error, debug=ctx.params["debug"])
            ctx.exit(1)


def _explain(error: Exception, *, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    if isinstance(error, IngestError):
        reason = str(error)
    elif isinstance(error, OSError):  # A file, a disk, a network: something outside of us.
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    else:
        reason = f"a bug: {type(error).__name__}: {error} (--debug shows where)"
    click.echo(f"cs-ingest: {' '.join(reason.split())}", err=True)


def _hush_libraries(*, debug: bool) -> None:
    """Leave what libraries log to `--debug`: people get one line. The service sets up a log of its own."""
    import logging

    logging.basicConfig(level=logging.WARNING, handlers=[logging.StreamHandler() if debug else logging.NullHandler()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version
        from platform import python_version

        click.echo(f"cs-ingest {__version__}")
        click.echo(f"python {python_version()}")
        for name in _LIBRARIES:
            click.echo(f"{name} {version(name)}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show where an error comes from, and what libraries log.")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show versions."
)
def commands(debug: bool) -> None:
    """Take events in, store them durably, and say so only then.

    Settings are environment variables that begin with CS_INGEST_, or a .env file: see `cs-ingest
    config`.
    """
    _hush_libraries(debug=debug)


def main() -> None:
    """Run the command line; ends the process."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # Who reads a pipe sees each line when it is there.
    commands(prog_name="cs-ingest")
