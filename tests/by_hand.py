"""A producing service that makes its proofs by hand, and so can leave out or bend any part, on a running stack."""

import secrets
from dataclasses import dataclass, replace
from typing import Final, cast

from fixtures_stack import ask

from sluicegate.dev_client import Client, Prepared
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.home import Home
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE, Installation
from sluicegate.keys import PrivateKey, key_id_of
from sluicegate.proof import make_proof, make_token, proof_headers
from sluicegate.schemas import codec
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.schemas.ids import EventKey, entity_uid
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker

PERSON: Final = "eva.eng"
SERVICE: Final = "helpdesk-app"
ANSWER_LIMIT_S: Final = 120.0


class Producer:
    """A service that proves its requests by hand, and so can leave out or bend any part of the proof."""

    def __init__(self, settings: Settings, now_s: int) -> None:
        self.now_s = now_s
        self.keys = Installation(settings, Home(root=settings.home)).keys
        self.audience = proof_audience(env=settings.env, topic=f"{settings.tenant}.requests")
        self.count = 0

    def ask(self, **changes: object) -> RequestSubmitted:
        """A request with an id of its own that policy allows as it stands."""
        self.count += 1
        return replace(ask(f"bad-{self.count}"), **changes)  # type: ignore[arg-type]

    def token(self, person: str = PERSON, service: str = SERVICE, **changes: object) -> str:
        key = cast(PrivateKey, changes.pop("key", self.keys.issuer(ISSUER_KEY)))
        own: dict[str, object] = {
            "kid": key_id_of(self.keys.issuer(ISSUER_KEY), "issuer"),
            "issuer": ISSUER,
            "audience": TOKEN_AUDIENCE,
            "claims": {"sub": person, "act": {"sub": service}},
            "now_s": self.now_s,
        }
        return make_token(key, **{**own, **changes})  # type: ignore[arg-type]

    def prove(
        self,
        body: RequestSubmitted | bytes,
        *,
        person: str = PERSON,
        service: str = SERVICE,
        token: str | None = None,
        **changes: object,
    ) -> Prepared:
        value = body if isinstance(body, bytes) else codec.encode(body)
        signing = cast(PrivateKey, changes.pop("signing", self.keys.service(service)))
        token = token or self.token(person, service)
        own: dict[str, object] = {
            "kid": key_id_of(self.keys.service(service), "service"),
            "service": service,
            "audience": self.audience,
            "key": entity_uid("User", person).encode(),
            "value": value,
            "now_s": self.now_s,
            "jti": secrets.token_urlsafe(16),
            "token": token,
        }
        proof = make_proof(signing, **{**own, **changes})  # type: ignore[arg-type]
        headers = proof_headers(proof, token)
        return Prepared(key=cast(bytes, {**own, **changes}["key"]), value=value, headers=headers)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A record as it was sent, where it stands, and what was released for it."""

    record: Prepared
    key: EventKey
    release: ReleaseMade


class Street:
    """Puts records on the request topic and waits for what is released for them."""

    def __init__(self, client: Client, broker: Broker, now_s: int) -> None:
        self.client, self.broker, self.now_s = client, broker, now_s

    async def put(self, record: Prepared, *, beside: int = 0, late_s: int = 0) -> tuple[Prepared, EventKey]:
        topology = self.client.topology
        partition = (partition_of(record.key, topology.partitions) + beside) % topology.partitions
        unsent = Unsent(key=record.key, value=record.value, headers=record.headers)
        stamp_ms = (self.now_s - late_s) * 1000
        offset = await self.broker.append(topology.requests, partition, [unsent], timestamp_ms=stamp_ms)
        return record, EventKey(epoch=1, topic=topology.requests, partition=partition, offset=offset)

    async def released(self, put: tuple[Prepared, EventKey]) -> Sent:
        return Sent(record=put[0], key=put[1], release=await self.client.release_of(put[1], ANSWER_LIMIT_S))
