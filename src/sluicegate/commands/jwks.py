"""`sluicegate jwks fetch`: an identity provider's keys as a change of the directory, or written into its file."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from sluicegate.attached import attach
from sluicegate.enforcer.credentials import Algorithm, Binding
from sluicegate.enforcer.jwks import IssuerUpdate, Jwks, issuer_entry, issuer_update, read_jwks
from sluicegate.home import open_home
from sluicegate.issuer_publish import publish_issuer
from sluicegate.jwks_source import Provider, discover, fetch, read_file
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory
from sluicegate.schemas.strict_json import JsonObject, NotStrict, loads_object
from sluicegate.settings import load_settings
from sluicegate.stopping import signer_from

DIRECTORY_BYTES_MAX: Final = 64 * 1024**2


@click.group()
def jwks() -> None:
    """Bring an identity provider's public keys into the directory; the gate itself fetches nothing."""


@jwks.command(name="fetch")
@click.option("--issuer", required=True, help="`iss` of its tokens, exactly.")
@click.option("--url", help="Address of the JWKS.  [default: what the issuer's own metadata say]")
@click.option("--file", "file", type=click.Path(path_type=Path), help="The JWKS in a file, where nothing is fetched.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificate authorities in PEM.  [default: system's]")
@click.option("--directory", type=click.Path(path_type=Path), help="The directory that has it.  [default: the setting]")
@click.option("--audience", help="`aud` that tokens must have.  [default: as the directory says]")
@click.option("--claim", help="Claim that names the person.  [default: as the directory says, else sub]")
@click.option(
    "--bind",
    type=click.Choice([each.value for each in Binding]),
    help="Claim that ties a token to a service.  [default: as the directory says]",
)
@click.option(
    "--algorithm",
    type=click.Choice([each.value for each in Algorithm]),
    help="Take this algorithm's keys alone.  [default: the one that all usable keys have]",
)
@click.option("--write", is_flag=True, help="Write the entry into the directory's file, for `sluicegate publish`.")
@click.option("--publish", is_flag=True, help="Publish the change; the directory in force is what is changed.")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of a private key that signs the publication.  [default: the publisher's]",
)
@click.option("--check", is_flag=True, help="Write and print no change; exit 1 where the keys differ.")
def fetch_keys(
    *,
    issuer: str,
    url: str | None,
    file: Path | None,
    ca_file: Path | None,
    directory: Path | None,
    audience: str | None,
    claim: str | None,
    bind: str | None,
    algorithm: str | None,
    write: bool,
    publish: bool,
    key_file: Path | None,
    check: bool,
) -> int:
    """Print the change of the directory by which the issuer's keys are those that it publishes now.

    What is the same, comes and goes is told on standard error. Nothing is in force before it is published: with
    `--publish` at once, with `--write` by `sluicegate publish`. A key that is gone refuses its tokens from then on.
    """
    if (url is not None and file is not None) or write + publish + check > 1:
        raise click.UsageError("give one of `--url` and `--file`, and one of `--write`, `--publish` and `--check`")
    if key_file is not None and not publish:
        raise click.UsageError("`--key` signs a publication; give `--publish` too")
    found = read_jwks(
        _source(issuer, url, file, Provider(ca_file=ca_file)),
        algorithm=None if algorithm is None else Algorithm(algorithm),
    )

    def updated(before: JsonObject | None) -> IssuerUpdate:
        entry = issuer_entry(
            issuer=issuer,
            audience=audience or _said(before, "audience", "--audience"),
            principal_claim=claim or ("sub" if before is None else _said(before, "principal_claim", "--claim")),
            binding=Binding(bind or _said(before, "binding", "--bind")),
            jwks=found,
        )
        return issuer_update(before, entry)

    if publish:
        return _publish(issuer, updated, found, key_file)
    path = directory or load_settings().directory
    document = _document(path)
    update = updated(_entry_of(document, issuer))
    _tell(update, found)
    if not update.content:
        return 0
    if write:
        _write(path, document, update.entry)
        click.echo(f"  written  `{path}`; run `sluicegate publish`", err=True)
    elif not check:
        click.echo(update.content)
    return 1 if check else 0


def _publish(
    issuer: str, updated: Callable[[JsonObject | None], IssuerUpdate], found: Jwks, key_file: Path | None
) -> int:
    settings = load_settings()
    attached, _ = attach(settings, open_home(settings.home))
    signer = None if key_file is None else signer_from(key_file)
    done = asyncio.run(publish_issuer(attached, issuer, updated, signer=signer))
    _tell(done.update, found)
    if done.version is not None:
        click.echo(f"  published directory v{done.version}", err=True)
    return 0


def _source(issuer: str, url: str | None, file: Path | None, provider: Provider) -> bytes:
    if file is not None:
        return read_file(file)

    async def asked() -> bytes:
        return await fetch(url or await discover(issuer, provider), provider)

    return asyncio.run(asked())


def _document(path: Path) -> JsonObject:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; name it with `--directory`") from None
    if len(data) > DIRECTORY_BYTES_MAX:
        raise ConfigurationError(f"`{path}` has over {DIRECTORY_BYTES_MAX} bytes; name a directory with `--directory`")
    try:
        return loads_object(data)
    except NotStrict as error:
        raise InvalidDirectory((f"the directory `{path}` is no JSON of one reading: {error}",)) from None


def _issuers(document: JsonObject) -> list[JsonObject]:
    listed = document.get("issuers", [])
    if not isinstance(listed, list):
        raise InvalidDirectory(("`issuers` of the directory must be a list; correct it",))
    return [each for each in listed if isinstance(each, dict)]


def _entry_of(document: JsonObject, issuer: str) -> JsonObject | None:
    found = [each for each in _issuers(document) if each.get("issuer") == issuer]
    if len(found) > 1:
        raise InvalidDirectory((f"the directory lists `{issuer}` {len(found)} times; keep one entry",))
    return found[0] if found else None


def _said(before: JsonObject | None, member: str, option: str) -> str:
    """What the directory's entry says; a new issuer has none, and nobody guesses who may send its tokens."""
    value = None if before is None else before.get(member)
    if not isinstance(value, str):
        raise ConfigurationError(f"the directory does not list this issuer yet; say its `{member}` with `{option}`")
    return value


def _tell(update: IssuerUpdate, found: Jwks) -> None:
    for word, kids in (("new", update.added), ("same", update.kept), ("gone", update.removed)):
        for kid in kids:
            click.echo(f"  {word:8} `{kid}`{f'  {found.algorithm}' if kid in found.keys else ''}", err=True)
    for each in found.skipped:
        click.echo(f"  left out `{each.kid}`: {each.why}", err=True)
    if not update.content:
        click.echo("  nothing to change", err=True)


def _write(path: Path, document: JsonObject, entry: JsonObject) -> None:
    """The same directory with this entry in its place, or at the end of the list."""
    issuers = _issuers(document)
    at = next((index for index, each in enumerate(issuers) if each.get("issuer") == entry["issuer"]), len(issuers))
    text = json.dumps({**document, "issuers": [*issuers[:at], entry, *issuers[at + 1 :]]}, indent=2, ensure_ascii=False)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(f"{text}\n", encoding="utf-8")
        draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(f"`{path}` cannot be written: {error.strerror}") from None
