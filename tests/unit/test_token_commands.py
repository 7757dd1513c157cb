"""`sluicegate token` and `sluicegate proof` as they are typed: what they sign, the gate believes, and nothing of it in
production.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluicegate import cli
from sluicegate.enforcer.credentials import Binding, Credentials, parse_credentials
from sluicegate.enforcer.identity import PROOF_TYPE, prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.home import open_home
from sluicegate.installation import ISSUER, TOKEN_AUDIENCE, Installation
from sluicegate.keys import KeyKind, key_id_of, new_p256, public_jwk
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings

BODY = b'{"request_id": "r1", "note": "the words of the request"}'
DIRECTORY = {"entities": [{"uid": {"type": "Service", "id": name}} for name in ("helpdesk-app", "night-app")]}


@dataclass(frozen=True)
class Typed:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The keys of a one-box stack: of two services, one of them P-256, and the development issuer."""
    monkeypatch.setenv("SLUICEGATE_HOME", str(tmp_path / "home"))
    home = open_home(tmp_path / "home")
    made = Installation(Settings(home=home.root), home, development=True)
    made.keys.new(KeyKind.SERVICE, "night-app", make=new_p256)
    made.directory_content(json.dumps(DIRECTORY).encode())
    return made


@pytest.fixture
def credentials(installation: Installation) -> Credentials:
    return parse_credentials(json.loads(installation.directory_content(json.dumps(DIRECTORY).encode())))


@pytest.fixture
def typed(installation: Installation, capsys: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    def call(*words: str) -> Typed:
        code = cli.main(list(words))
        found = capsys.readouterr()
        return Typed(code, found.out, found.err)

    return call


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_bytes(BODY)
    return path


def record_of(made: dict[str, object], value: bytes = BODY) -> Record:
    headers = made["headers"]
    assert isinstance(headers, dict)
    partition = made["partition"]
    assert isinstance(partition, int)
    return Record(
        topic="main.requests", partition=partition, offset=0, timestamp_ms=0, key=str(made["key"]).encode(),
        value=value, headers=tuple((name, text.encode()) for name, text in headers.items()),
    )  # fmt: skip


def believed(record: Record, credentials: Credentials, *, late_s: int = 0) -> Identity | Code:
    found = prove(
        record, audience="urn:sluicegate:local:main.requests", partition_count=2,
        time_ms=(int(time.time()) + late_s) * 1000, credentials=credentials, seen=SeenProofs(),
    )  # fmt: skip
    return found.code if isinstance(found, Refused) else found


@pytest.mark.parametrize("service", ["helpdesk-app", "night-app"])
def test_a_person_is_believed_and_only_with_this_body_and_in_time(
    typed: Callable[..., Typed], credentials: Credentials, body: Path, service: str
) -> None:
    made = typed("proof", service, "--body", str(body), "--as", "ana.support", "--json")
    assert (made.code, made.err) == (0, "")
    found = believed(record_of(made.json), credentials)
    assert isinstance(found, Identity)
    assert (found.principal, found.actor) == ('User::"ana.support"', f'Service::"{service}"')
    assert found.token_issuer == ISSUER
    assert believed(record_of(made.json, b"another body"), credentials) is Code.PROOF_BODY
    assert believed(record_of(made.json), credentials, late_s=310) is Code.PROOF_TIME


def test_a_service_is_believed_in_its_own_name(
    typed: Callable[..., Typed], credentials: Credentials, body: Path
) -> None:
    made = typed("proof", "helpdesk-app", "--body", str(body), "--json").json
    found = believed(record_of(made), credentials)
    assert isinstance(found, Identity)
    assert found.principal == 'Service::"helpdesk-app"'
    assert list(made["headers"]) == ["sg-proof"]  # type: ignore[call-overload]


def test_a_token_goes_from_one_command_into_the_other(
    typed: Callable[..., Typed], credentials: Credentials, body: Path, tmp_path: Path
) -> None:
    token = typed("token", "eva.eng", "--via", "helpdesk-app")
    file = tmp_path / "token"
    file.write_text(token.out)
    made = typed("proof", "helpdesk-app", "--body", str(body), "--token", str(file), "--json").json
    found = believed(record_of(made), credentials)
    assert isinstance(found, Identity)
    assert found.principal == 'User::"eva.eng"'
    # Whoever else holds the token has no use for it.
    stolen = typed("proof", "night-app", "--body", str(body), "--token", str(file), "--json").json
    assert believed(record_of(stolen), credentials) is Code.TOKEN_BINDING


def test_a_token_bound_to_the_services_key(
    typed: Callable[..., Typed], credentials: Credentials, body: Path, tmp_path: Path
) -> None:
    bound = typed("token", "eva.eng", "--via", "night-app", "--bind", "cnf.jkt", "--json").json
    assert bound["claims"]["cnf"] == {  # type: ignore[index]
        "jkt": next(key.public.thumbprint for key in credentials.service_keys.values() if key.service == "night-app")
    }
    file = tmp_path / "token"
    file.write_text(str(bound["token"]))
    answers = []
    for service in ("night-app", "helpdesk-app"):
        made = typed("proof", service, "--body", str(body), "--token", str(file), "--json").json
        answers.append(believed(record_of(made), credentials))
    assert isinstance(answers[0], Identity)
    assert answers[1] is Code.TOKEN_BINDING


def test_a_token_of_another_issuer_of_the_directory(
    typed: Callable[..., Typed], credentials: Credentials, installation: Installation, body: Path, tmp_path: Path
) -> None:
    installation.keys.new(KeyKind.ISSUER, "staging")
    key = installation.keys.issuer("staging")
    entry = {
        "issuer": "https://id.example", "audience": "gate", "principal_claim": "email", "binding": "azp",
        "jwks": {"keys": [public_jwk(key, key_id_of(key, "issuer"))]},
    }  # fmt: skip
    document = json.loads(installation.directory_content(json.dumps(DIRECTORY).encode()))
    both = parse_credentials({**document, "issuers": [*document["issuers"], entry]})
    file = tmp_path / "token"
    words = ("--issuer", "https://id.example", "--key", "staging", "--audience", "gate", "--claim", "email")
    file.write_text(typed("token", "eva@x.example", "--via", "helpdesk-app", "--bind", "azp", *words).out)
    words = ("--body", str(body), "--token", str(file), "--claim", "email")
    made = typed("proof", "helpdesk-app", *words, "--json").json
    assert isinstance(believed(record_of(made), both), Identity)
    assert believed(record_of(made), credentials) is Code.TOKEN_ISSUER


def test_what_is_in_it_is_told_beside_it(typed: Callable[..., Typed], body: Path) -> None:
    token = typed("token", "eva.eng", "--via", "helpdesk-app", "--lifetime-s", "60")
    assert token.code == 0
    assert len(token.out.strip().split(".")) == 3
    for said in (f'"{ISSUER}"', f'"{TOKEN_AUDIENCE}"', '"eva.eng"', '{"sub": "helpdesk-app"}', "+00:00"):
        assert said in token.err
    proof = typed("proof", "helpdesk-app", "--body", str(body), "--as", "eva.eng")
    assert [line.partition("=")[0] for line in proof.out.splitlines()] == ["sg-proof", "sg-token"]
    for said in (f'"{PROOF_TYPE}"', '"urn:sluicegate:local:main.requests"', 'User::"eva.eng"', "partition "):
        assert said in proof.err
    assert "the words of the request" not in proof.err


@pytest.mark.parametrize("env", ["prod", "production", "live", "prd"])
@pytest.mark.parametrize("command", ["token", "proof"])
def test_nothing_is_signed_in_production(
    typed: Callable[..., Typed], body: Path, monkeypatch: pytest.MonkeyPatch, env: str, command: str
) -> None:
    words = {"token": ("eva.eng", "--via", "helpdesk-app"), "proof": ("helpdesk-app", "--body", str(body))}[command]
    assert typed(command, *words).code == 0
    monkeypatch.setenv("SLUICEGATE_ENV", env)
    refused = typed(command, *words)
    assert (refused.code, refused.out) == (2, "")
    assert f"`SLUICEGATE_ENV` is `{env}`" in refused.err


def test_what_is_missing_or_wrong_is_told_in_one_line(
    typed: Callable[..., Typed], body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("eyJhbGciOiJub25lIn0.e30")
    cases = {
        ("token", "eva.eng", "--via", "nobody", "--bind", "cnf.jkt"): "there is no key of `nobody`",
        ("token", "eva.eng", "--via", "helpdesk-app", "--key", "other"): "holds no key `issuer-other.pem`",
        ("proof", "nobody", "--body", str(body)): "there is no key",
        ("proof", "helpdesk-app", "--body", str(tmp_path / "no")): "cannot be read",
        ("proof", "helpdesk-app", "--body", str(body), "--token", str(rubbish)): "no compact JWS",
        ("proof", "helpdesk-app", "--body", str(body), "--token", str(rubbish), "--as", "eva"): "give one",
    }
    for words, said in cases.items():
        found = typed(*words)
        assert (found.code, found.out, len(found.err.splitlines())) == (2, "", 1), words
        assert said in found.err
        assert "eyJ" not in found.err, "no token in an error"
    monkeypatch.setenv("SLUICEGATE_REQUEST_BYTES_MAX", "1024")
    body.write_bytes(b"x" * 1025)
    assert "at most" in typed("proof", "helpdesk-app", "--body", str(body)).err


def test_every_binding_is_offered(typed: Callable[..., Typed]) -> None:
    for binding in Binding:
        assert typed("token", "eva.eng", "--via", "helpdesk-app", "--bind", binding.value).code == 0
