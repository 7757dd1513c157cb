"""`sluicegate publish`: the bundle and directory on disk, signed and appended to the policy log of the stack."""

import asyncio
from pathlib import Path

import click

from sluicegate.attached import attach
from sluicegate.home import open_home
from sluicegate.publish import publish as publish_policy
from sluicegate.settings import load_settings


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
def publish(bundle: Path | None) -> int:
    """Publish the policy bundle and the directory; what does not validate is refused and nothing changes.

    It goes to the stack that runs here, else to the broker that `SLUICEGATE_BOOTSTRAP` names; that needs the
    publisher's key, the root's metadata and the public halves of the stage keys in `SLUICEGATE_KEYS_DIR`, no other key.
    """
    settings = load_settings()
    attached, one_box = attach(settings, open_home(settings.home))
    bundle_dir = attached.bundle_dir if bundle is None else bundle
    directory = attached.model_copy(update={"bundle_dir": bundle_dir}).directory
    found = asyncio.run(publish_policy(attached, bundle_dir, directory, development=one_box))
    verb = "published" if found.changed else "already in force:"
    click.echo(
        f"  {verb} bundle v{found.version} {found.digest[:19]}.. ({found.policies} policies), "
        f"directory v{found.directory_version}"
    )
    return 0
