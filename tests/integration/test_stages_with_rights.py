"""Every stage as a process of its own, each with its own user on a broker that allows nothing by default: what `topics
apply` grants is enough for the whole way of a request, and the passwords stay in their files.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from deployment import Deployment, Host
from fixtures_broker import ADMIN, TENANTS, SecuredKafka
from fixtures_model import Settings as ModelSettings
from fixtures_model import Tensors, write_tiny_gguf

from sluicegate.client import Answer, Client, ClientConfig, ReleaseOutcome
from sluicegate.enforcer.seal import StageKey
from sluicegate.keys import KeyFolder, KeyKind, key_id_of, public_jwk
from sluicegate.proof import make_token
from sluicegate.schemas.events import Parameters
from sluicegate.schemas.ids import KeyId
from sluicegate.streams.topology import STAGES

SERVICE, PERSON = "helpdesk-app", "eva.eng"
ISSUER, AUDIENCE = "https://id.heron.example", "sluicegate"
IDENTITY_PROVIDER = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
ANSWER_S = 90.0
CONTEXT_TOKENS = 2048


def widen(_: Tensors, settings: ModelSettings) -> None:
    settings["llama.context_length"] = CONTEXT_TOKENS


def as_user(kafka: SecuredKafka, name: str, folder: Path) -> dict[str, str]:
    path = folder / f"{name}.secret"
    path.touch(mode=0o600)
    path.write_text(kafka.password(name) + "\n")
    return {"sasl_username": name, "sasl_password_file": str(path)}


def prefixed(settings: dict[str, str]) -> dict[str, str]:
    return {f"SLUICEGATE_{name.upper()}": value for name, value in settings.items()}


@pytest.fixture
def deployment(secured_kafka: SecuredKafka, tmp_path: Path) -> Iterator[Deployment]:
    model = write_tiny_gguf(tmp_path / "tiny.gguf", change=widen)
    settings = {
        "bootstrap": secured_kafka.bootstrap,
        "broker": "kafka",
        "security_protocol": "SASL_PLAINTEXT",
        "tenant": f"t{next(TENANTS)}",
        "replication": "1",
        "fetch_wait_ms": "20",
        "model_source": str(model),
    }
    made = Deployment(tmp_path, **settings)
    made.publisher.settings |= prefixed(as_user(secured_kafka, "main.publisher", tmp_path))
    made.make_keys()
    for stage in STAGES:
        made.host(stage, stage, **as_user(secured_kafka, f"main.{stage}", tmp_path))
    made.hosts["application"] = Host(tmp_path / "application")
    made.service(SERVICE, made.hosts["application"])
    admin = made.hosts["admin"] = Host(
        tmp_path / "admin",
        **settings,
        directory_path=str(made.directory),
        **as_user(secured_kafka, ADMIN, tmp_path),
    )
    made.change_directory(
        replies=[{"service": SERVICE, "topic": "helpdesk"}],
        issuers=[
            {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "principal_claim": "sub",
                "binding": "act.sub",
                "jwks": {"keys": [public_jwk(IDENTITY_PROVIDER, "idp-1")]},
            }
        ],
    )
    users = [word for role in (*STAGES, "publisher") for word in ("--user", f"{role}=main.{role}")]
    assert admin.type("topics", "apply", *users) == 0
    assert admin.type("topics", "check", *users) == 0
    try:
        yield made
    finally:
        made.end()


def redactor_keys(deployment: Deployment) -> dict[KeyId, StageKey]:
    folder = KeyFolder(deployment.publisher.keys, may_make=False)
    (name,) = folder.of(KeyKind.STAGE, "redactor", endings=(".pub",))
    public = folder.public(name)
    assert isinstance(public, Ed25519PublicKey)
    key_id = KeyId(key_id_of(public, "redactor"))
    key = StageKey(key_id=key_id, stage="redactor", public=public, not_before_ms=0, revoked_at_ms=None)
    return {key_id: key}


async def asked(deployment: Deployment, kafka: SecuredKafka, count: int) -> list[Answer]:
    token = make_token(
        IDENTITY_PROVIDER,
        kid="idp-1",
        issuer=ISSUER,
        audience=AUDIENCE,
        claims={"sub": PERSON, "act": {"sub": SERVICE}},
        now_s=int(time.time()),
    )
    config = ClientConfig(
        bootstrap=kafka.bootstrap,
        service=SERVICE,
        reply="helpdesk",
        key=deployment.hosts["application"].keys / f"service-{SERVICE}.pem",
        trust=redactor_keys(deployment),
        tenant=deployment.hosts["admin"].loaded().tenant,
        security=kafka.security(SERVICE),
        timeout_s=ANSWER_S,
        fetch_wait_ms=20,
    )
    async with Client(config) as client:
        return await asyncio.gather(
            *(
                client.ask(
                    model="smollm2",
                    purpose="writing",
                    text=f"Say hello, {number}.",
                    parameters=Parameters(max_tokens=4),
                    person_token=token,
                )
                for number in range(count)
            )
        )


@pytest.mark.timeout(240)
def test_the_whole_way_of_a_request_with_the_rights_that_apply_grants(
    deployment: Deployment, secured_kafka: SecuredKafka
) -> None:
    assert deployment.publisher.type("publish") == 0
    stages = {stage: deployment.hosts[stage].run(stage) for stage in STAGES}
    answers = asyncio.run(asked(deployment, secured_kafka, 5))
    assert {answer.outcome for answer in answers} == {ReleaseOutcome.RELEASED}
    assert {stage: process.poll() for stage, process in stages.items()} == dict.fromkeys(STAGES)
    for stage, process in stages.items():
        password = secured_kafka.password(f"main.{stage}")
        shown = [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
        shown.append(deployment.hosts[stage].log(stage).read_bytes())
        assert not any(password.encode() in each for each in shown)
        assert f"{password}\n" == (deployment.folder / f"main.{stage}.secret").read_text()


def test_a_stage_with_anothers_user_says_what_is_forbidden(deployment: Deployment, tmp_path: Path) -> None:
    assert deployment.publisher.type("publish") == 0
    runner = deployment.hosts["runner"]
    runner.settings |= deployment.hosts["sink"].settings | {
        name: value for name, value in runner.settings.items() if "SASL" not in name
    }
    process = runner.run("runner")
    assert process.wait(60) == 2
    assert (
        "create the topics first" in runner.log("runner").read_text() or "forbids" in runner.log("runner").read_text()
    )
