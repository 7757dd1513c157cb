"""`sluicegate policy test`: the test cases of a bundle, run through the gate's own checks 4 to 7."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import click

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.cases import read_cases
from sluicegate.policy.coverage import measure
from sluicegate.policy.junit import junit as junit_report
from sluicegate.policy.mutants import mutate
from sluicegate.policy.trial import Outcome, run_case
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import load_settings


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
@click.option("--directory", type=click.Path(path_type=Path), help="the directory (default: the setting)")
@click.option("--case", "glob", default="*", show_default=True, help="only cases whose name matches this glob")
@click.option("--junit", type=click.Path(path_type=Path), help="write a JUnit report to this file")
@click.option("--coverage/--no-coverage", default=True, show_default=True, help="say what no case reaches")
@click.option("--mutation", is_flag=True, help="break the policies in every way and say what no case notices")
@click.option("--min-mutation-score", type=click.FloatRange(0, 1), help="exit 1 below this share; implies --mutation")
def test(
    bundle: Path | None,
    directory: Path | None,
    glob: str,
    junit: Path | None,
    *,
    coverage: bool,
    mutation: bool,
    min_mutation_score: float | None,
) -> int:
    """Run the test cases of a bundle (`tests/*.yaml`) through the checks that the gate runs.

    Exit code 1: a case failed, there is none, or the mutation score is below the limit.
    """
    rules = load_rules(bundle, directory)
    cases = [case for case in read_cases(rules.bundle.cases) if fnmatchcase(case.name, glob)]
    outcomes = [run_case(case, rules) for case in cases]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        _show(outcome)
    if junit is not None:
        _write(junit, junit_report(rules.bundle.name, outcomes))
    click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed")
    if not outcomes:
        click.echo("no case to run: add `tests/NAME.yaml` to the bundle, or correct `--case`", err=True)
        return 1
    if coverage:
        found = measure(rules, outcomes)
        click.echo(f"reached: {found.summary()}")
        for line in found.lines():
            click.echo(f"  {line}")
    if failed:
        return 1
    if not mutation and min_mutation_score is None:
        return 0
    return 0 if _mutation(rules, outcomes, 0.0 if min_mutation_score is None else min_mutation_score) else 1


def load_rules(folder: Path | None, directory: Path | None) -> Rules:
    """What requests are judged by: the bundle of a folder, and a directory file; where None, those of the settings.

    Raises:
        ConfigurationError: a file cannot be read.
        InvalidBundle, InvalidDirectory: as the gate would refuse them.
    """
    settings = load_settings()
    if folder is not None:
        settings = settings.model_copy(update={"bundle_dir": folder})
    loaded = load_bundle(read_bundle(settings.bundle_dir))
    path = directory or settings.directory
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; name it with `--directory`") from None
    known = load_directory(content, loaded)
    return Rules(bundle=loaded, directory=known, decider=Decider(loaded, known))


def _show(outcome: Outcome) -> None:
    click.echo(f"FAILED {outcome.case.place()}: {outcome.case.name}")
    for difference in outcome.differences:
        for line in difference.lines():
            click.echo(f"  {line}")


def _mutation(rules: Rules, outcomes: Sequence[Outcome], least: float) -> bool:
    found = mutate(rules, outcomes)
    click.echo(f"mutation score {found.score:.2f}: {found.made - len(found.survivors)} of {found.made} noticed")
    for survivor in found.survivors:
        click.echo(f"  {survivor.line()}")
    if found.score >= least:
        return True
    click.echo(f"the score is below {least:.2f}; add cases that notice the changes above", err=True)
    return False


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be written: {error.strerror}; name another file") from None
