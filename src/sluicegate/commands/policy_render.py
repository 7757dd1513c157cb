"""`sluicegate policy render`: a bundle as English sentences, for reviewers who do not read Cedar."""

from pathlib import Path
from typing import Literal

import click

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.policy.render import render as rendered
from sluicegate.settings import load_settings


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="markdown: for a page or a review",
)
def render(bundle: Path | None, form: Literal["text", "markdown"]) -> int:
    """Write a whole bundle as English: every policy, its conditions and obligations, and what they refer to.

    What there are no words for stands as its Cedar text; nothing is left out.
    """
    folder = load_settings().bundle_dir if bundle is None else bundle
    for line in rendered(load_bundle(read_bundle(folder)), form):
        click.echo(line)
    return 0
