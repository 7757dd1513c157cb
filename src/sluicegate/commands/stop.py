"""`sluicegate stop` and `sluicegate resume`: in an incident, nothing of what is named goes on; and it may again."""

import asyncio
from pathlib import Path

import click

from sluicegate.attached import attach
from sluicegate.enforcer.stops import Scope
from sluicegate.home import open_home
from sluicegate.settings import load_settings
from sluicegate.stopping import Changed, signer_from, stop_of
from sluicegate.stopping import resume as resume_stop
from sluicegate.stopping import stop as stop_now

SCOPE = click.Choice([scope.value for scope in Scope])
KEY = click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="file of a private key that signs; may be given more than once.  [default: the publisher's]",
)


@click.command()
@click.argument("what", type=SCOPE)
@click.argument("name", default="")
@KEY
def stop(what: str, name: str, key_files: tuple[Path, ...]) -> int:
    """Stop WHAT is called NAME: a principal or key by its id, a model, a bundle by its digest, a grant by its decision
    id, or all.

    Nothing of it is decided, started, generated on or released any more, until it is resumed.
    """
    wanted = stop_of(what, name)
    settings = load_settings()
    attached, _ = attach(settings, open_home(settings.home))
    changed = asyncio.run(stop_now(attached, wanted, signers=[signer_from(path) for path in key_files]))
    click.echo(f"  stopped  {wanted}" + ("" if changed.version else " (it was already)"))
    _standing(changed)
    return 0


@click.command()
@click.argument("what", type=SCOPE)
@click.argument("name", default="")
@KEY
def resume(what: str, name: str, key_files: tuple[Path, ...]) -> int:
    """Undo the stop of WHAT called NAME. It takes the keys of as many people as the roles demand: give each `--key`."""
    wanted = stop_of(what, name)
    settings = load_settings()
    attached, _ = attach(settings, open_home(settings.home))
    changed = asyncio.run(resume_stop(attached, wanted, signers=[signer_from(path) for path in key_files]))
    click.echo(f"  resumed  {wanted}" if changed.version else f"  {wanted} was not stopped")
    _standing(changed)
    return 0


def _standing(changed: Changed) -> None:
    for each in changed.standing:
        click.echo(f"  stands   {each}")
