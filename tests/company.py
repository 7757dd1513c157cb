"""The example company in memory: its policy log, its services' keys, and requests proved as a producer proves them."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stages import KEYS

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stage_keys import stage_keys_content
from sluicegate.enforcer.state import Accepted, NotReady, PolicyLog, Rules
from sluicegate.enforcer.trust import Domain, digest_of
from sluicegate.enforcer.trust_make import make_root, sign_targets
from sluicegate.keys import key_id_of, public_jwk, signer_of
from sluicegate.proof import make_proof, make_token, proof_headers
from sluicegate.schemas import codec
from sluicegate.schemas.events import (
    DirectoryChanged,
    Document,
    FieldText,
    Message,
    Parameters,
    PolicyKind,
    PolicyPublished,
    RequestSubmitted,
    Role,
)
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.records import Record

POLICIES = Path(__file__).parent.parent / "policies"
DOMAIN = Domain(env="test", tenant="heron")
TOPIC = "heron.requests"
AUDIENCE = proof_audience(env="test", topic=TOPIC)
PARTITIONS = 2
ISSUER = "urn:test:issuer"
NOON_MS = 1_795_176_000_000  # 2026-11-20T12:00:00Z, a Friday
FAR_MS = 4_102_444_800_000


def private_key(name: str) -> Ed25519PrivateKey:
    """A key that is always the same for the same name."""
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")[:32])


def directory_content() -> bytes:
    """The example directory with keys for its services and one issuer."""
    document = json.loads((POLICIES / "directory.json").read_bytes())
    services = [each["uid"]["id"] for each in document["entities"] if each["uid"]["type"] == "Service"]
    document["service_keys"] = [
        {"kid": key_id_of(private_key(name), "service"), "service": name, "jwk": public_jwk(private_key(name))}
        for name in services
    ]
    issuer = private_key("issuer")
    document["issuers"] = [
        {
            "issuer": ISSUER,
            "audience": "sluicegate",
            "principal_claim": "sub",
            "binding": "act.sub",
            "jwks": {"keys": [public_jwk(issuer, key_id_of(issuer, "issuer"))]},
        }
    ]
    return json.dumps(document).encode()


def policy_events(bundle: bytes | None = None, version: int = 1) -> list[PolicyPublished | DirectoryChanged]:
    """Root, keys, directory and bundle, signed."""
    root, publisher = signer_of(private_key("root")), signer_of(private_key("publisher"))
    metadata = make_root(
        domain=DOMAIN,
        version=1,
        expires_ms=FAR_MS,
        root_keys=(root.public_key,),
        root_threshold=1,
        publisher_keys=(publisher.public_key,),
        publisher_threshold=1,
        timestamp_keys=(signer_of(private_key("freshness")).public_key,),
        signers=(root,),
    )

    def signed(kind: Kind, content: bytes) -> bytes:
        return sign_targets(
            kind,
            content,
            domain=DOMAIN,
            version=version,
            effective_at_ms=0,
            expires_ms=FAR_MS,
            signers=(publisher,),
        )

    keys, directory = stage_keys_content(KEYS.values()), directory_content()
    content = bundle if bundle is not None else read_bundle(POLICIES)
    return [
        PolicyPublished(kind=PolicyKind.ROOT, version=1, metadata=metadata, content=b""),
        PolicyPublished(kind=PolicyKind.KEYS, version=version, metadata=signed(Kind.KEYS, keys), content=keys),
        DirectoryChanged(version=version, metadata=signed(Kind.DIRECTORY, directory), content=directory),
        PolicyPublished(
            kind=PolicyKind.BUNDLE, version=version, metadata=signed(Kind.BUNDLE, content), content=content
        ),
    ]


@cache
def policy_log() -> PolicyLog:
    """The company's policy state, folded from signed events."""
    events = policy_events()
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    for offset, event in enumerate(events):
        found = log.fold(offset, event, NOON_MS)
        assert isinstance(found, Accepted), found
    return log


def gate(
    partition: int = 0,
    *,
    slice_bytes_max: int = 900_000,
    log: PolicyLog | None = None,
    schema_ids: Mapping[int, str] | None = None,
) -> Gate:
    """A fresh gate over the company's policy, which is taken to be complete."""
    at = (log or policy_log()).at
    return gate_of(at, partition, slice_bytes_max=slice_bytes_max, schema_ids=schema_ids)


def gate_of(
    rules_at: Callable[[int], Rules | NotReady],
    partition: int = 0,
    *,
    slice_bytes_max: int = 900_000,
    schema_ids: Mapping[int, str] | None = None,
) -> Gate:
    """A fresh gate over these rules."""
    config = GateConfig(
        epoch=1,
        partition=partition,
        audience=AUDIENCE,
        partition_count=PARTITIONS,
        request_bytes_max=256 * 1024,
        stale_after_ms=600_000,
        slice_bytes_max=slice_bytes_max,
        schema_ids=schema_ids or {},
    )
    return Gate(config, rules_at)


def request(
    request_id: str = "r1",
    *,
    question: str = "What is Mara Lind's phone number?",
    purpose: str = "ticket",
    documents: tuple[Document, ...] = (),
    parameters: Parameters | None = None,
    model: str = "smollm2",
) -> RequestSubmitted:
    """A request that nobody has signed yet."""
    return RequestSubmitted(
        request_id=request_id,
        model=model,
        purpose=purpose,
        messages=(Message(role=Role.USER, content=question),),
        documents=documents,
        parameters=parameters or Parameters(),
    )


def document(dataset: str, *fields: tuple[str, str]) -> Document:
    """A document of (field, text) pieces."""
    return Document(
        dataset=dataset, document_id="1", fields=tuple(FieldText(name=name, text=text) for name, text in fields)
    )


def record(
    body: RequestSubmitted | bytes,
    *,
    person: str | None = "ana.support",
    service: str = "helpdesk-app",
    offset: int = 0,
    at_ms: int = NOON_MS,
    jti: str = "",
) -> Record:
    """The request as it stands on the log, with its proof; on the partition that its key says."""
    value = body if isinstance(body, bytes) else codec.encode(body)
    key = (entity_uid("User", person) if person else entity_uid("Service", service)).encode()
    token = None
    if person:
        issuer = private_key("issuer")
        token = make_token(
            issuer,
            kid=key_id_of(issuer, "issuer"),
            issuer=ISSUER,
            audience="sluicegate",
            claims={"sub": person, "act": {"sub": service}},
            now_s=at_ms // 1000,
        )
    signing = private_key(service)
    proof = make_proof(
        signing,
        kid=key_id_of(signing, "service"),
        service=service,
        audience=AUDIENCE,
        key=key,
        value=value,
        now_s=at_ms // 1000,
        jti=jti or f"proof-of-record-{offset:016d}",
        token=token,
    )
    return Record(
        topic=TOPIC,
        partition=partition_of(key, PARTITIONS),
        offset=offset,
        timestamp_ms=at_ms,
        key=key,
        value=value,
        headers=proof_headers(proof, token),
    )
