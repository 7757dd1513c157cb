"""`sluicegate keys rotate`: the next root of trust, with other keys; published where enough signatures are here."""

import asyncio
import time
from pathlib import Path

import click
from securesystemslib.signer import Key  # type: ignore[attr-defined]

from sluicegate.commands.envelope_lines import (
    DAY_MS,
    FILE,
    contents_lines,
    env_option,
    key_option,
    landed_line,
    refusal_lines,
)
from sluicegate.enforcer.trust_make import Envelope
from sluicegate.envelopes import Refusal, contents_of, publish_envelopes, save_envelope, signed_by
from sluicegate.environments import environment
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import PRIVATE, PUBLIC, KeyKind, KeyName, tuf_key_of
from sluicegate.policy_versions import PolicyView, read_policy
from sluicegate.roles_file import read_public
from sluicegate.root_rotation import ROLES, Change, leaving, next_root, public_keys, signers_here
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.stopping import signer_from

SETTLE_S = 2.0
"""How long the old key for freshness stays: its stage may be about to sign with it."""


@click.command()
@click.argument("kind", type=click.Choice([each.value for each in ROLES]))
@env_option
@click.option("--public", "publics", multiple=True, type=FILE, help="A new key's public half; else one is made here.")
@click.option("--add", is_flag=True, help="Let the keys that are named stay.")
@click.option("--threshold", type=click.IntRange(1), help="How many must sign for it.  [default: as it was]")
@click.option("--expires-in", "days", type=click.IntRange(1, 36500), help="Days.  [default: the end of the last one]")
@key_option
@click.option("--out", type=FILE, help="Write the envelope for others to sign, and publish nothing.")
def rotate(
    *,
    kind: str,
    env: str | None,
    publics: tuple[Path, ...],
    add: bool,
    threshold: int | None,
    days: int | None,
    key_files: tuple[Path, ...],
    out: Path | None,
) -> int:
    """Replace the key of root, publisher or freshness by the next root of trust, signed by the old root keys and the
    new ones.

    It is published at once where enough of them are here, and old private keys of this folder are taken out of use.
    Nobody has to give a stage a new `root.json`: each follows from the one that it pins.
    """
    if out is not None and not publics:
        raise click.UsageError("a key that is made here is used at once; with `--out` give its `--public`")
    wanted, at = KeyKind(kind), environment(env)
    installation = Installation(at.settings, Home(root=at.settings.home), development=at.one_box)
    view = asyncio.run(read_policy(at.settings))
    root = view.state.root
    if root is None:
        raise ConfigurationError(f"no root of trust stands on the policy log of `{at.name}`; publish first")
    made = () if publics else (installation.keys.new(wanted),)
    new = [tuf_key_of(read_public(file)) for file in publics] or [public_keys(installation.keys, wanted)[0]]
    try:
        change = Change(
            kind=wanted,
            new=tuple(new),
            gone=frozenset() if add else leaving(root, wanted, installation.keys),
            threshold=threshold,
            freshness=_freshness(installation),
        )
        expires_ms = root.expires_ms if days is None else view.now_ms + days * DAY_MS
        envelope = next_root(root, change, domain=installation.domain, expires_ms=expires_ms)
        signers = {each.public_key.keyid: each for each in map(signer_from, key_files)}
        signers |= {each.public_key.keyid: each for each in signers_here(installation, root, made)}
        envelope = signed_by(envelope, tuple(signers.values()), view)
        contents = contents_of(envelope, view)
        if out is not None or not contents.complete:
            return _handed_on(envelope, view, out)
    except ConfigurationError:
        _forget(installation, made)
        raise
    found = asyncio.run(publish_envelopes(at.settings, [envelope]))
    if isinstance(found, Refusal):
        _forget(installation, made)
        for line in refusal_lines(found):
            click.echo(line, err=True)
        return 1
    for each in found:
        click.echo(landed_line(each, at.name))
    if made and not add:
        _retire(installation, made[0])
    return 0


def _freshness(installation: Installation) -> tuple[Key, ...]:
    """Keys that a root gets which names none for freshness; one box makes its own."""
    if installation.development:
        installation.keys.freshness()
    return public_keys(installation.keys, KeyKind.FRESHNESS)


def _handed_on(envelope: Envelope, view: PolicyView, out: Path | None) -> int:
    """Writes what others have yet to sign.

    Raises:
        ConfigurationError: nobody said where to, or it cannot be written.
    """
    if out is None:
        raise ConfigurationError(
            "the root keys here are not enough for the next root: give each with `--key`, or make the new key where it "
            "belongs and write an envelope for the others to sign, with `--public FILE --out FILE`"
        )
    save_envelope(out, envelope, new=True)
    for line in contents_lines(contents_of(envelope, view), out):
        click.echo(line)
    return 0


def _forget(installation: Installation, made: tuple[KeyName, ...]) -> None:
    """Removes a key that nothing names, so that nobody signs with it."""
    for name in made:
        for ending in (PRIVATE, PUBLIC):
            installation.keys.file(name, ending).unlink(missing_ok=True)


def _retire(installation: Installation, new: KeyName) -> None:
    if new.kind is KeyKind.FRESHNESS:
        time.sleep(SETTLE_S)
    for name in installation.keys.of(new.kind, endings=(PRIVATE, PUBLIC)):
        if name == new:
            continue
        gone = installation.keys.retire(name)
        click.echo(f"  file      {'its public half is gone' if gone is None else f'now `{gone}`'}")
