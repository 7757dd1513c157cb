"""The guide to identity: its table leaves no code out, and the provider of its example is believed as shown there."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from forge import ENV, SERVICES, TOPIC, Jws, jwk_of, rsa_key
from producers import PARTITIONS

from sluicegate.commands.jwks import fetch_keys
from sluicegate.dev_identity import PRODUCTION
from sluicegate.enforcer.credentials import Binding, Credentials, parse_credentials
from sluicegate.enforcer.identity import proof_audience, prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.jwks import issuer_entry, read_jwks
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.proof import make_proof, proof_headers
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity
from sluicegate.schemas.records import Record
from sluicegate.schemas.strict_json import encode_base64url

CODE = re.compile(r"`([A-Z]+_[A-Z_]+)`")
KEY = b'User::"ana.support"'
BODY = b"a body"


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "identity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def claims(page: str) -> dict[str, Any]:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    found = yaml.safe_load(block)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def credentials(page: str) -> Credentials:
    """The issuer as the line of the example puts it into the directory, from a JWKS as Keycloak writes it."""
    (line,) = [line for line in page.splitlines() if line.startswith("sluicegate jwks fetch") and "--bind" in line]
    options = fetch_keys.make_context("fetch", shlex.split(line)[3:]).params
    jwk = {**jwk_of(type(SERVICES[0])(name="", kid="", key=rsa_key())), "x5c": ["MIIC"], "x5t": "Q"}
    keys = [
        {**jwk, "kid": "sign", "use": "sig", "alg": "RS256"},
        {**jwk, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"},
    ]
    entry = issuer_entry(
        issuer=options["issuer"], audience=options["audience"], principal_claim=options["claim"],
        binding=Binding(options["bind"]), jwks=read_jwks(json.dumps({"keys": keys}).encode()),
    )  # fmt: skip
    services = [{"kid": each.kid, "service": each.name, "jwk": jwk_of(each)} for each in SERVICES]
    return parse_credentials({"entities": [], "service_keys": services, "issuers": [entry]})


def answer(claims: dict[str, Any], credentials: Credentials, service: int = 0) -> Identity | Code:
    header = {"alg": "RS256", "typ": "JWT", "kid": "sign"}
    token = Jws(key=rsa_key(), header=header, claims=claims).text()
    sender, now_s = SERVICES[service], claims["iat"] + 5
    proof = make_proof(
        sender.key, kid=sender.kid, service=sender.name, audience=proof_audience(env=ENV, topic=TOPIC),  # type: ignore[arg-type]
        key=KEY, value=BODY, now_s=now_s, jti=encode_base64url(bytes(16)), token=token,
    )  # fmt: skip
    record = Record(
        topic=TOPIC, partition=partition_of(KEY, PARTITIONS), offset=0, timestamp_ms=0, key=KEY, value=BODY,
        headers=proof_headers(proof, token),
    )  # fmt: skip
    found = prove(
        record, audience=proof_audience(env=ENV, topic=TOPIC), partition_count=PARTITIONS, time_ms=now_s * 1000,
        credentials=credentials, seen=SeenProofs(),
    )  # fmt: skip
    return found.code if isinstance(found, Refused) else found


def test_the_token_of_the_example_is_believed_and_from_its_service_alone(
    claims: dict[str, Any], credentials: Credentials
) -> None:
    found = answer(claims, credentials)
    assert isinstance(found, Identity)
    assert (found.principal, found.actor) == (KEY.decode(), 'Service::"helpdesk-app"')
    assert answer(claims, credentials, service=1) is Code.TOKEN_BINDING


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"typ": "ID"}, Code.TOKEN_MALFORMED),
        ({"typ": "Refresh"}, Code.TOKEN_MALFORMED),
        ({"aud": "account"}, Code.TOKEN_AUDIENCE),
        ({"azp": "billing-app"}, Code.TOKEN_BINDING),
        ({"exp": 1_795_176_005}, Code.TOKEN_TIME),
        ({"realm_access": {"roles": ["r" * 9000]}}, Code.TOKEN_MALFORMED),
    ],
)
def test_what_the_example_warns_of_is_refused(
    claims: dict[str, Any], credentials: Credentials, changes: dict[str, Any], code: Code
) -> None:
    assert answer({**claims, **changes}, credentials) is code


def test_every_code_of_identity_stands_in_the_table(page: str) -> None:
    table = page[page.index("| | what is checked") : page.index("## How a token is bound")]
    wanted = {code.value for code in Code if code.value.startswith(("PROOF_", "TOKEN_"))} | {"WRONG_PARTITION"}
    assert set(CODE.findall(table)) == wanted


def test_bindings_and_refused_environments_are_all_named(page: str) -> None:
    assert [each.value for each in Binding if f"| `{each.value}` |" not in page] == []
    assert [each for each in PRODUCTION if f"`{each}`" not in page] == []
