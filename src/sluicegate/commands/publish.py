"""`sluicegate policy publish`, which is `sluicegate publish` too: what was signed, or what lies here, onto the log."""

import asyncio
from pathlib import Path

import click

from sluicegate.commands.envelope_lines import FILE, env_option, landed_line, refusal_lines
from sluicegate.envelopes import Refusal, open_envelope, publish_envelopes
from sluicegate.environments import Environment, environment
from sluicegate.publish import publish as publish_policy


@click.command()
@click.argument("files", nargs=-1, type=FILE)
@env_option
@click.option("--bundle", type=FILE, help="Without FILES: folder of the bundle (default: the setting)")
def publish(files: tuple[Path, ...], env: str | None, bundle: Path | None) -> int:
    """Publish the envelopes FILES in this order; or, without any, the policy bundle and the directory that lie here.

    What would be refused is not published, and nothing changes: exit code 1, with a code and what to do.

    Without FILES the publisher's key of this installation signs, as far as something is not in force yet. It goes to
    the stack that runs here, else to the broker that `SLUICEGATE_BOOTSTRAP` names; that needs the publisher's key, the
    root's metadata and the public halves of the stage keys in `SLUICEGATE_KEYS_DIR`, no other key.
    """
    if files and bundle is not None:
        raise click.UsageError("`--bundle` is published without FILES; leave one of them out")
    envelopes = [open_envelope(file) for file in files]
    at = environment(env)
    if not files:
        return _publish_folder(at, bundle)
    found = asyncio.run(publish_envelopes(at.settings, envelopes))
    if isinstance(found, Refusal):
        for line in refusal_lines(found):
            click.echo(line, err=True)
        return 1
    for each in found:
        click.echo(landed_line(each, at.name))
    return 0


def _publish_folder(at: Environment, bundle: Path | None) -> int:
    bundle_dir = at.settings.bundle_dir if bundle is None else bundle
    directory = at.settings.model_copy(update={"bundle_dir": bundle_dir}).directory
    found = asyncio.run(publish_policy(at.settings, bundle_dir, directory, development=at.one_box))
    verb = "published" if found.changed else "already in force:"
    click.echo(
        f"  {verb} bundle v{found.version} {found.digest[:19]}.. ({found.policies} policies), "
        f"directory v{found.directory_version}"
    )
    return 0
