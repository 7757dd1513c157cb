"""Words of the command line go in, an exit code comes out: the only place that turns exceptions into lines and codes.

0 done; 1 refused or failed (`SluicegateError`, a check that did not hold); 2 wrong settings or usage; 130 Ctrl-C.
Each command is a module of its own, imported when it is called: `COMMANDS` is the table to extend.
"""

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from sluicegate import logs
from sluicegate.commands.lazy import LazyGroup
from sluicegate.schemas.errors import ConfigurationError, SluicegateError

# Name -> the module and the click command in it, and one line for `sluicegate --help` (so that help imports nothing).
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("sluicegate.commands.up:up", "start the stack: broker, gate, runner, redactor, delivery, audit"),
    "down": ("sluicegate.commands.up:down", "stop the stack"),
    "status": ("sluicegate.commands.up:status", "show what runs"),
    "demo": ("sluicegate.commands.demo:demo", "the example company, beat by beat"),
    "ask": ("sluicegate.commands.ask:ask", "ask the model as somebody of the example company"),
    "audit": ("sluicegate.commands.audit:audit", "ask the audit: sql, show, questions"),
    "replay": ("sluicegate.commands.replay:replay", "decide the recorded history again under another bundle"),
    "keys": ("sluicegate.commands.keys:keys", "make, list and revoke keys"),
    "token": ("sluicegate.commands.token:token", "sign an access token for development"),
    "proof": ("sluicegate.commands.proof:proof", "sign the proof of a request for development"),
    "jwks": ("sluicegate.commands.jwks:jwks", "bring an identity provider's keys into the directory"),
    "directory": ("sluicegate.commands.directory:directory", "bring people and data fields into the directory"),
    "publish": ("sluicegate.commands.publish:publish", "sign and publish the policy bundle and the directory"),
    "policy": ("sluicegate.commands.policy:policy", "write, check, test, compare, sign and publish policy bundles"),
    "models": ("sluicegate.commands.models:models", "list the models that somebody may invoke"),
    "stop": ("sluicegate.commands.stop:stop", "stop a principal, key, model, bundle, grant or all, at once"),
    "resume": ("sluicegate.commands.stop:resume", "undo a stop"),
    "doctor": ("sluicegate.commands.doctor:doctor", "check this installation and say how to mend it"),
    "schemas": ("sluicegate.commands.schemas:schemas", "list, register or write the schemas that producers use"),
    "topics": ("sluicegate.commands.topics:topics", "create and verify topics and rights of a deployment"),
    "health": ("sluicegate.commands.health:health", "whether one stage is well, for a container's health check"),
    "run": ("sluicegate.commands.run:run", "run one stage in the foreground"),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="sluicegate", message="%(prog)s %(version)s")
def sluicegate() -> None:
    """Every request to a language model decided by policy, shaped, limited, redacted and recorded."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. An exception nobody expected passes through, to `sys.excepthook`."""
    sys.excepthook = logs.report_bug(_say)
    try:
        result = sluicegate.main(args=arguments, prog_name="sluicegate", standalone_mode=False)
    except click.ClickException as error:
        _say(f"{error.format_message()} (`sluicegate --help` shows how)")
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SluicegateError as error:
        _say(str(error))
        return 2 if isinstance(error, ConfigurationError) else 1
    except BrokenPipeError:
        # `sluicegate ... | head`: the reader has enough. Python's own flush at exit must not complain again.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    click.echo(f"sluicegate: {' '.join(text.split())}", err=True)
