"""`sluicegate policy promote` and `rollback`: content that stands on a log already, in a new envelope to be signed."""

import asyncio
from pathlib import Path

import click

from sluicegate.commands.envelope_lines import DAY_MS, contents_lines, env_option, short, term_options
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.envelopes import Term, contents_of, save_envelope, signers_of
from sluicegate.environments import Environment, environment
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import KeyKind
from sluicegate.policy_versions import PolicyView, Version, read_policy
from sluicegate.promotion import earlier_bundle, promoted, running_bundle


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@term_options
def promote(
    *, source: str, target: str, effective_at_ms: int | None, days: int, key_files: tuple[Path, ...], out: Path | None
) -> int:
    """Make an envelope for environment TO with the bundle that is in force in FROM, byte for byte, to be signed there.

    Refused where the directory of TO does not conform to it.
    """
    here = environment(source)
    bundle = running_bundle(asyncio.run(read_policy(here.settings)), here.name)
    there = environment(target)
    view = asyncio.run(read_policy(there.settings))
    return _made(there, view, bundle, effective_at_ms, days, key_files, out)


@click.command()
@env_option
@click.option("--to", "version", type=click.IntRange(1), help="Version to return to.  [default: the one before]")
@term_options
def rollback(
    *,
    env: str | None,
    version: int | None,
    effective_at_ms: int | None,
    days: int,
    key_files: tuple[Path, ...],
    out: Path | None,
) -> int:
    """Make an envelope with the content of an earlier bundle under the next version, to be signed anew.

    A version never goes back: what was signed once is refused as OLDER for ever.
    """
    there = environment(env)
    view = asyncio.run(read_policy(there.settings))
    return _made(there, view, earlier_bundle(view, there.name, version), effective_at_ms, days, key_files, out)


def _made(
    there: Environment,
    view: PolicyView,
    bundle: Version,
    effective_at_ms: int | None,
    days: int,
    key_files: tuple[Path, ...],
    out: Path | None,
) -> int:
    installation = Installation(there.settings, Home(root=there.settings.home))
    number = view.state.version_of(Kind.BUNDLE) + 1
    start_ms = effective_at_ms if effective_at_ms is not None else (view.now_ms if number > 1 else 0)
    # Whoever promotes may be nobody there: then the first of those who sign is the next to have the file.
    may_sign = key_files or installation.keys.of(KeyKind.PUBLISHER)
    envelope = promoted(
        bundle,
        view,
        domain=installation.domain,
        term=Term(version=number, effective_at_ms=start_ms, expires_ms=max(start_ms, view.now_ms) + days * DAY_MS),
        signers=signers_of(installation, key_files, Kind.BUNDLE) if may_sign else (),
    )
    if envelope is None:
        click.echo(f"  `{there.name}` has {short(bundle.digest)} as its newest bundle already")
        return 0
    file = out or Path(f"{there.name}-bundle-v{number}.json")
    save_envelope(file, envelope, new=True)
    for line in contents_lines(contents_of(envelope, view), file):
        click.echo(line)
    return 0
