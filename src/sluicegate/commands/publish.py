"""`sluicegate publish`: the bundle and directory on disk, signed and appended to the policy log of the stack."""

import asyncio
from pathlib import Path

import click

from sluicegate.home import open_home
from sluicegate.publish import publish as publish_policy
from sluicegate.settings import load_settings


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
def publish(bundle: Path | None) -> int:
    """Publish the policy bundle and the directory; what does not validate is refused and nothing changes."""
    settings = load_settings()
    home = open_home(settings.home)
    state = home.running()
    settings = settings.model_copy(update={"home": home.root, **({"bundle_dir": bundle} if bundle else {})})
    attached = settings.attached(bootstrap=state.bootstrap, epoch=state.epoch)
    found = asyncio.run(publish_policy(attached, attached.bundle_dir, attached.directory))
    verb = "published" if found.changed else "already in force:"
    click.echo(
        f"  {verb} bundle v{found.version} {found.digest[:19]}.. ({found.policies} policies), "
        f"directory v{found.directory_version}"
    )
    return 0
