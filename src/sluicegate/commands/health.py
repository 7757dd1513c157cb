"""`sluicegate health STAGE`: whether the stage that runs on this data directory does its work, as an exit code."""

import time

import click

from sluicegate.health import health_file, problem_of
from sluicegate.home import Home
from sluicegate.settings import load_settings
from sluicegate.supervisor import RUNNABLE


@click.command()
@click.argument("stage", type=click.Choice(RUNNABLE))
def health(stage: str) -> int:
    """Exit code 0 when STAGE is ready, follows the policy log, and the broker answered it in the last half minute."""
    folder = Home(root=load_settings().home).run
    problem = problem_of(health_file(folder, stage), now_s=time.time())
    click.echo(f"  {stage}  {problem or 'well'}")
    return 0 if problem is None else 1
