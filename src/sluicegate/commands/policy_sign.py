"""`sluicegate policy sign`: an envelope for what is to be published, one person's signature more, who is missing."""

import asyncio
import time
from pathlib import Path

import click

from sluicegate.commands.envelope_lines import DAY_MS, FILE, contents_lines, env_option, term_options
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.trust import Domain
from sluicegate.enforcer.trust_make import Envelope
from sluicegate.envelopes import (
    Term,
    contents_of,
    make_envelope,
    misfit_of,
    open_envelope,
    save_envelope,
    signed_by,
    signers_of,
)
from sluicegate.environments import Environment, described, environment
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_versions import PolicyView, read_policy
from sluicegate.publishable import Part, bundle_part, directory_part, keys_part, resume_part, roles_part
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.stopping import signer_from


@click.command()
@click.argument("envelope", required=False, type=FILE)
@env_option
@click.option("--bundle", type=FILE, help="Make an envelope for the bundle in this folder.")
@click.option("--directory", type=FILE, help="For the directory in this file, or for a change of one.")
@click.option("--roles", type=FILE, help="For who may speak for what, as this YAML file says.")
@click.option("--keys", is_flag=True, help="For the stage keys whose public halves lie in the keys folder.")
@click.option("--resume", nargs=2, metavar="WHAT NAME", help="For the end of a stop; `all` has the NAME ''.")
@click.option("--version", type=click.IntRange(1), help="Its number.  [default: the next of its kind]")
@term_options
@click.option("--show", is_flag=True, help="Sign nothing; say who has signed.")
def sign(
    *,
    envelope: Path | None,
    env: str | None,
    bundle: Path | None,
    directory: Path | None,
    roles: Path | None,
    keys: bool,
    resume: tuple[str, str] | None,
    version: int | None,
    effective_at_ms: int | None,
    days: int,
    key_files: tuple[Path, ...],
    out: Path | None,
    show: bool,
) -> int:
    """Make an envelope for one version of one environment, or add a signature to the file ENVELOPE.

    Envelopes go from person to person as files. People are counted, not keys: with a threshold of two, author and
    approver differ. Without `--key`, this installation's publisher's key signs.
    """
    made = [each for each in (envelope, bundle, directory, roles, keys or None, resume or None) if each is not None]
    if len(made) != 1:
        raise click.UsageError("give an ENVELOPE, or one of `--bundle`, `--directory`, `--roles`, `--keys`, `--resume`")
    if envelope is not None:
        if version is not None or effective_at_ms is not None:
            raise click.UsageError("what was signed stays as it is; `--version` and `--effective-at` make a new one")
        return _add(envelope, env, key_files, out, show=show)
    if show:
        raise click.UsageError("`--show` goes with an ENVELOPE")
    at, view = _reached(described(env))
    installation = Installation(at.settings, Home(root=at.settings.home), development=at.one_box)
    part = _part(view, installation, bundle, directory, roles, resume)
    if view is None and version is None:
        raise ConfigurationError("the policy log is not reached, so give the number of this version with `--version`")
    now_ms = time.time_ns() // 1_000_000 if view is None else view.now_ms
    number = version or (1 if view is None else view.state.version_of(part.kind) + 1)
    if effective_at_ms is None:
        effective_at_ms = now_ms if number > 1 else 0
    fresh = make_envelope(
        part.kind if part.speakers is None else part.speakers,
        part.content,
        domain=installation.domain,
        term=Term(
            version=number,
            effective_at_ms=effective_at_ms,
            expires_ms=max(effective_at_ms, now_ms) + days * DAY_MS,
        ),
        signers=(),
    )
    fresh = signed_by(fresh, signers_of(installation, key_files, part.kind), view)
    file = out or Path(f"{at.name}-{part.kind.lower()}-v{number}.json")
    save_envelope(file, fresh, new=True)
    _tell(fresh, view, file)
    if part.kind is Kind.BUNDLE and view is not None and (misfit := misfit_of(view, part.content)) is not None:
        click.echo(f"  note      the directory in force does not conform to it: {misfit}", err=True)
    return 0


def _add(file: Path, env: str | None, key_files: tuple[Path, ...], out: Path | None, *, show: bool) -> int:
    envelope = open_envelope(file)
    contents = contents_of(envelope, None)
    at = _known(env or contents.domain.env, asked=env is not None)
    view = None
    if at is not None:
        domain = Domain(env=at.settings.env, tenant=at.settings.tenant)
        if domain != contents.domain:
            raise ConfigurationError(
                f"the envelope is for environment `{contents.domain.env}`, tenant `{contents.domain.tenant}`, not for "
                f"`{domain.env}`, `{domain.tenant}`; sign the one that was made for it"
            )
        at, view = _reached(at)
    if not show:
        installation = None if at is None else Installation(at.settings, Home(root=at.settings.home))
        if installation is None and not key_files:
            raise ConfigurationError(f"no environment `{contents.domain.env}` is known here; sign with `--key FILE`")
        signers = (
            tuple(map(signer_from, key_files))
            if installation is None
            else signers_of(installation, key_files, contents.kind)
        )
        envelope = signed_by(envelope, signers, view)
        save_envelope(out or file, envelope, new=out is not None)
    _tell(envelope, view, out or file)
    return 0


def _known(name: str, *, asked: bool) -> Environment | None:
    """Whoever only approves may know no broker: where nobody asked for the environment, its name is enough."""
    try:
        return described(name)
    except ConfigurationError:
        if asked:
            raise
        return None


def _reached(at: Environment) -> tuple[Environment, PolicyView | None]:
    try:
        reached = environment(at.name)
        return reached, asyncio.run(read_policy(reached.settings))
    except Unavailable as error:
        click.echo(f"  the policy log is not known: {error}", err=True)
        return at, None


def _part(
    view: PolicyView | None,
    installation: Installation,
    bundle: Path | None,
    directory: Path | None,
    roles: Path | None,
    resume: tuple[str, str] | None,
) -> Part:
    if bundle is not None:
        return bundle_part(bundle)
    if directory is not None:
        return directory_part(directory, installation)
    if roles is not None:
        return roles_part(roles)
    if view is None:
        raise ConfigurationError("stage keys and the end of a stop need the policy log; name its broker")
    return resume_part(*resume, view) if resume else keys_part(installation, view)


def _tell(envelope: Envelope, view: PolicyView | None, file: Path) -> None:
    for line in contents_lines(contents_of(envelope, view), file):
        click.echo(line)
