"""What the client refuses before it connects, what it signs, and which keys it believes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from echo_gate import KEY, KEYS, PRIVATE, ROGUE, EchoGate
from producers import AUDIENCE, BILLING, HELPDESK, NOW_S, PARTITIONS, asked, token_for

from sluicegate.client import ClientConfig
from sluicegate.client import copies as copies_module
from sluicegate.client.body import body_of, principal_of
from sluicegate.client.copies import Copies
from sluicegate.client.signing import ProofKey, Prover, read_key
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.stage_keys import stage_keys_content
from sluicegate.keys import write_key
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import Identity, Message, ReleaseMade, RequestSubmitted, Role, Source
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.reading import read_request
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.topology import Topology

TOPOLOGY = Topology(tenant="main", partitions=2)
REQUEST = RequestSubmitted(request_id="a", model="m", purpose="p", messages=(Message(role=Role.USER, content="hé"),))


def config(**changes: object) -> ClientConfig:
    return ClientConfig(**{"bootstrap": "b:1", "service": "desk", "key": HELPDESK, "trust": KEYS, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bootstrap": ""}, "`bootstrap` must name a broker"),
        ({"service": ""}, "`service` must be the id"),
        ({"service": "Help Desk"}, "`Help Desk` cannot name a reply topic; give `reply`"),
        ({"reply": "../other"}, "cannot name a reply topic"),
        ({"waiting_max": 0}, "`waiting_max`"),
        ({"timeout_s": 0}, "`timeout_s`"),
        ({"deadline_share": 1.5}, "`deadline_share`"),
        ({"partitions": 0}, "`partitions`"),
        ({"epoch": 0}, "`epoch`"),
        ({"wire_format": "xml"}, "`wire_format`"),
        ({"when_full": "drop"}, "`when_full`"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        config(**changes)


def test_a_config_shows_no_key_and_no_password() -> None:
    assert config(service="Help Desk", reply="help-desk").reply_name == "help-desk"
    assert "Private" not in repr(config())


class Elsewhere:
    """A key management service that signs with the key it keeps."""

    def sign(self, data: bytes, /) -> bytes:
        r, s = decode_dss_signature(BILLING.sign(data, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_key(self):  # type: ignore[no-untyped-def]
        return BILLING.public_key()


async def proved(
    key: ProofKey, *, kid: str, service: str, principal: str, token: str | None, now_s: int = NOW_S
) -> Record:
    prover = Prover(key, kid=kid, service=service, audience=AUDIENCE, now_ms=lambda: now_s * 1000)
    body = body_of(REQUEST, key=principal, token=token, wire_format="avro")
    unsent = await prover.prove(key=body.key, value=body.value, token=token, headers=body.headers)
    return Record(
        topic="requests", partition=partition_of(body.key, PARTITIONS), offset=7, timestamp_ms=NOW_S * 1000,
        key=unsent.key, value=unsent.value, headers=unsent.headers,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "kid", "service"),
    [
        (HELPDESK, "helpdesk-1", "helpdesk-app"),
        (BILLING, "billing-1", "billing-app"),
        (Elsewhere(), "billing-1", "billing-app"),
    ],
    ids=["Ed25519", "ES256", "another's"],
)
async def test_the_gate_takes_what_it_proves(key: ProofKey, kid: str, service: str) -> None:
    record = await proved(key, kid=kid, service=service, principal=f'Service::"{service}"', token=None)
    found = asked(record)
    assert isinstance(found, Identity)
    assert (found.principal, found.actor) == (f'Service::"{service}"', f'Service::"{service}"')
    again = await proved(key, kid=kid, service=service, principal=f'Service::"{service}"', token=None)
    assert found.proof_id != asked(again).proof_id  # type: ignore[union-attr]
    late = await proved(key, kid=kid, service=service, principal=f'Service::"{service}"', token=None, now_s=NOW_S + 60)
    assert asked(late) is Code.PROOF_TIME


async def test_on_behalf_of_a_person_the_token_goes_along() -> None:
    token = token_for("ana.support")
    principal = principal_of(None, token, service="helpdesk-app")
    assert principal == 'User::"ana.support"'
    record = await proved(HELPDESK, kid="helpdesk-1", service="helpdesk-app", principal=principal, token=token)
    found = asked(record)
    assert isinstance(found, Identity)
    assert found.principal == 'User::"ana.support"'


def test_who_asks() -> None:
    assert principal_of("ana", None, service="desk") == 'User::"ana"'
    assert principal_of('Robot::"r"', token_for("ana"), service="desk") == 'Robot::"r"'
    assert principal_of(None, None, service="desk") == 'Service::"desk"'


def test_json_reads_as_the_same_request() -> None:
    body = body_of(REQUEST, key='User::"ana"', token=None, wire_format="json")
    record = Record(
        topic="t", partition=0, offset=0, timestamp_ms=0, key=body.key, value=body.value, headers=body.headers
    )
    assert read_request(record) == REQUEST
    assert json.loads(body.value)["request_id"] == "a"


def test_keys_come_from_guarded_files(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "service-desk.pem"
    with pytest.raises(ConfigurationError, match="sluicegate keys new service"):
        read_key(path)
    write_key(path, HELPDESK)
    assert read_key(path).public_key() == HELPDESK.public_key()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key(path)


def copy_of(gate: EchoGate, number: int, *, private: object = PRIVATE) -> Record:
    release = ReleaseMade(
        release_id=f"r{number}", source=Source(offset=0, count=1, digest=b"", timestamp_ms=0), code=Code.OK,
        outcome=ReleaseOutcome.RELEASED, retryable=False, request_offset=number, actor='Service::"desk"',
    )  # fmt: skip
    sealed: Unsent = gate.seal(release, 0, private=private)  # type: ignore[arg-type]
    return Record(
        topic=TOPOLOGY.reply("desk"), partition=0, offset=99, timestamp_ms=0, key=None, value=sealed.value,
        headers=sealed.headers,
    )  # fmt: skip


def test_a_new_key_of_the_redactor_counts_once_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies_module, "KEY_FILE_EVERY_S", 0.0)
    gate, path = EchoGate(TOPOLOGY), tmp_path / "redactor-keys.json"
    with pytest.raises(ConfigurationError, match="keys list --public"):
        Copies(config(trust=path))
    path.write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match="holds no stage keys"):
        Copies(config(trust=path))
    stranger = replace(KEY, key_id=KeyId("other"), public=ROGUE.public_key())
    path.write_bytes(stage_keys_content([stranger]))
    copies = Copies(config(trust=path))
    assert copies.read(copy_of(gate, 1)) is None
    write(path, stage_keys_content([stranger, KEY]), at=1)
    assert copies.read(copy_of(gate, 2)) is not None
    write(path, b"half a fil", at=2)
    assert copies.read(copy_of(gate, 3)) is not None, "a file that cannot be read changes nothing"
    write(path, stage_keys_content([stranger, replace(KEY, revoked_at_ms=1)]), at=3)
    assert copies.read(copy_of(gate, 4)) is None, "a revoked key seals nothing"
    write(path, stage_keys_content([replace(KEY, stage="runner")]), at=4)
    assert copies.read(copy_of(gate, 5)) is None, "another stage's key releases nothing"
    assert (copies.counts.unverified, copies.counts.unreadable) == (3, 0)


def write(path: Path, content: bytes, *, at: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(at * 1_000_000_000, at * 1_000_000_000))


def test_repeats_are_known_as_far_as_memory_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "SEEN_MAX", 3)
    gate, copies = EchoGate(TOPOLOGY), Copies(config())
    records = [copy_of(gate, number) for number in range(4)]
    assert all(copies.read(record) for record in records)
    assert copies.read(records[3]) is None
    assert copies.read(records[3], before=True) is not None
    assert copies.read(records[0]) is not None, "the oldest was forgotten"
    assert len(copies._seen) == 3
    assert (copies.counts.genuine, copies.counts.repeated) == (5, 1)
