"""`sluicegate proof SERVICE --body FILE`: the headers that prove a request of this body, and what is in them."""

import json
import secrets
from pathlib import Path
from typing import Final

import click

from sluicegate.commands.token import here, tell
from sluicegate.dev_identity import TokenWish, development_proof, development_token, read_jws
from sluicegate.schemas.errors import ConfigurationError

TOKEN_FILE_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 16 * 1024**2


@click.command()
@click.argument("service")
@click.option(
    "--body", required=True, type=click.Path(path_type=Path), help="File with the record's value; `-`: stdin."
)
@click.option(
    "--token", "token_file", type=click.Path(path_type=Path), help="File with the access token to send along."
)
@click.option("--as", "person", help="Make the token too, for this person, with the development issuer's key.")
@click.option("--claim", default="sub", show_default=True, help="Claim of the token that names the person.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: key, partition, headers, proof.")
def proof(service: str, *, body: Path, token_file: Path | None, person: str | None, claim: str, as_json: bool) -> int:
    """Prove a request as SERVICE, for development: headers as `name=value` lines on standard output.

    The proof is for these very bytes, this environment and tenant, and good for minutes; it is spent by its decision.
    Publish with the key and on the partition that are told on standard error.
    """
    if token_file is not None and person is not None:
        raise click.UsageError("`--token` and `--as` are two ways to the same header; give one")
    settings = here()
    token = None
    if token_file is not None:
        text = _read(token_file, TOKEN_FILE_BYTES_MAX).decode("utf-8", "replace").strip()
        token = read_jws(text)
    if person is not None:
        token = development_token(settings, TokenWish(person=person, service=service, claim=claim))
    made = development_proof(
        settings,
        service=service,
        body=_read(body, BODY_BYTES_MAX),
        jti=secrets.token_urlsafe(16),
        token=token,
        claim=claim,
    )
    if as_json:
        found = {"key": made.key, "partition": made.partition, "headers": dict(made.headers)}
        shown = {"header": made.proof.header, "claims": made.proof.claims}
        click.echo(json.dumps(found | {"proof": shown}, indent=1, ensure_ascii=False))
        return 0
    for name, value in made.headers.items():
        click.echo(f"{name}={value}")
    tell(made.proof)
    click.echo(f"  key   {made.key}", err=True)
    click.echo(f"  partition {made.partition} of {settings.partitions}", err=True)
    return 0


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with click.open_file(str(path), "rb") as file:
            data = bytes(file.read(bytes_max + 1))
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigurationError(f"`{path}` has over {bytes_max} bytes; give the value of one record")
    return data
