"""`sluicegate token PERSON --via SERVICE`: an access token of the development issuer, and what is in it."""

import json
from datetime import UTC, datetime

import click

from sluicegate.attached import attach
from sluicegate.dev_identity import (
    TOKEN_LIFETIME_S,
    TOKEN_LIFETIME_S_MAX,
    Jws,
    TokenWish,
    development_token,
    require_development,
)
from sluicegate.enforcer.credentials import Binding
from sluicegate.home import open_home
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE
from sluicegate.schemas.errors import Unavailable
from sluicegate.settings import Settings, load_settings

TIMES = ("iat", "nbf", "exp")


@click.command()
@click.argument("person")
@click.option("--via", required=True, help="Service that may send it.")
@click.option(
    "--bind",
    type=click.Choice([each.value for each in Binding]),
    default=Binding.ACTOR.value,
    show_default=True,
    help="Claim that ties it to the service; `cnf.jkt`: to the service's newest key.",
)
@click.option("--issuer", default=ISSUER, show_default=True, help="`iss`, an issuer of the directory.")
@click.option("--key", default=ISSUER_KEY, show_default=True, help="Issuer's key of the key folder that signs.")
@click.option("--audience", default=TOKEN_AUDIENCE, show_default=True, help="`aud`, as the directory has it.")
@click.option("--claim", default="sub", show_default=True, help="Claim that names the person.")
@click.option(
    "--lifetime-s",
    type=click.IntRange(1, TOKEN_LIFETIME_S_MAX),
    default=TOKEN_LIFETIME_S,
    show_default=True,
    help="Seconds until it expires.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: token, header, claims.")
def token(
    person: str,
    *,
    via: str,
    bind: str,
    issuer: str,
    key: str,
    audience: str,
    claim: str,
    lifetime_s: int,
    as_json: bool,
) -> int:
    """Sign an access token for PERSON, for development: the token on standard output, what is in it on the other.

    The directory that a one-box stack publishes lists the development issuer; a real one does not, and there the token
    counts for nothing.
    """
    made = development_token(
        here(),
        TokenWish(
            person=person,
            service=via,
            issuer=issuer,
            key=key,
            audience=audience,
            claim=claim,
            binding=Binding(bind),
            lifetime_s=lifetime_s,
        ),
    )
    if as_json:
        click.echo(json.dumps({"token": made.text, "header": made.header, "claims": made.claims}, indent=1))
        return 0
    click.echo(made.text)
    tell(made)
    return 0


def here() -> Settings:
    """The settings, pointed at the stack that runs here if one does: its clock is what stamps are compared with.

    Raises:
        ConfigurationError: this is production, or a setting is wrong.
    """
    settings = load_settings()
    require_development(settings)
    home = open_home(settings.home)
    try:
        return attach(settings, home)[0]
    except Unavailable:
        return settings.model_copy(update={"home": home.root})


def tell(made: Jws) -> None:
    """Prints header and claims to standard error, times also as people read them."""
    for part in (made.header, made.claims):
        for name, value in part.items():
            said = json.dumps(value, ensure_ascii=False)
            if name in TIMES and isinstance(value, int):
                said += f"  {datetime.fromtimestamp(value, UTC).isoformat()}"
            click.echo(f"  {name:4}  {said}", err=True)
