"""A house whose directory changes while people ask: decisions by the rules of their time, and the rows they leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policy_events import DOMAIN
from unit.sinks import heron

from sluicegate.enforcer.gate import Known, judged
from sluicegate.enforcer.seal import source_digest
from sluicegate.enforcer.state import Accepted, Event, NotReady, PolicyLog, Rejected
from sluicegate.schemas.codec import encode
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    DecisionMade,
    Document,
    FieldText,
    Identity,
    Message,
    Parameters,
    RequestSubmitted,
    Role,
    Source,
    Verdict,
)
from sluicegate.schemas.ids import decision_id, entity_uid
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Record
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink


@dataclass
class House:
    """Policy events and requests in the order of their stamps; `land` writes what an audit keeps of them."""

    epoch: int
    state: PolicyLog = field(default_factory=lambda: PolicyLog(domain=DOMAIN, root_digest=heron.ROOT_DIGEST))
    rows: dict[tuple[Table, int], list[Landing]] = field(default_factory=dict)

    def _append(self, table: Table, partition: int, value: bytes, stamp_ms: int, *, effective: bool = True) -> Record:
        held = self.rows.setdefault((table, partition), [])
        record = Record(
            topic=heron.topic(table), partition=partition, offset=len(held), timestamp_ms=stamp_ms, key=b"k",
            value=value, headers=(),
        )  # fmt: skip
        held.append(Landing(record=record, effective=effective, void_reason=None if effective else "rejected"))
        return record

    def publish(self, event: Event, stamp_ms: int) -> Accepted | Rejected:
        found = self.state.fold(self.state.position + 1, event, stamp_ms)
        self._append(Table.POLICY, 0, encode(event), stamp_ms, effective=isinstance(found, Accepted))
        return found

    def ask(
        self, partition: int, time_ms: int, who: str, *, purpose: str = "people", code: Code | None = None
    ) -> DecisionMade:
        """One request about pay, decided at `time_ms`. `code`: the check before policy that refuses it."""
        request = RequestSubmitted(
            request_id=f"{who}-{partition}-{time_ms}",
            model="smollm2",
            purpose=purpose,
            messages=(Message(role=Role.USER, content="How much?"),),
            documents=(
                Document(dataset="people", document_id="x", fields=(FieldText(name="salary", text="41,500 pounds"),)),
            ),
            parameters=Parameters(max_tokens=20),
        )
        record = self._append(Table.REQUESTS, partition, encode(request), time_ms)
        digest = source_digest(record.key, record.value)
        known = Known(
            decision_id=decision_id(epoch=self.epoch, partition=partition, offset=record.offset),
            source=Source(offset=record.offset, count=1, digest=digest, timestamp_ms=time_ms),
            time_ms=time_ms,
            request_id=request.request_id,
            model=request.model,
            purpose=purpose,
        )
        decision = self._decided(known, who, request, code)
        self._append(Table.DECISIONS, partition, encode(decision), time_ms)
        return decision

    def _decided(self, known: Known, who: str, request: RequestSubmitted, code: Code | None) -> DecisionMade:
        rules = self.state.at(known["time_ms"])
        if code in {Code.POISON, Code.POLICY_STALE} or isinstance(rules, NotReady):
            return denied(known, code or Code.POLICY_NOT_READY)
        known["policy"] = rules.version
        if code is not None and MEANINGS[code].check == 2 and code is not Code.DUPLICATE_OF:
            return denied(known, code)
        known["identity"] = identity = Identity(
            principal=entity_uid("User", who), actor=entity_uid(*heron.HELPDESK), proof_issuer="helpdesk-app",
            proof_id="jti", proof_issued_at_s=known["time_ms"] // 1000, proof_key_id="k1",
        )  # fmt: skip
        if code is Code.DUPLICATE_OF:
            return denied(known, code)
        stop = rules.stops.hitting(denied(known, Code.STOPPED))
        if stop is not None:
            return replace(denied(known, Code.STOPPED), reason=f"stopped: {stop}")
        return denied(known, code) if code else judged(known, rules.judging, identity, request)

    def land(self, sink: Sink) -> None:
        for (table, partition), landings in self.rows.items():
            sink.land(self.epoch, heron.topic(table), partition, landings)


def denied(known: Known, code: Code) -> DecisionMade:
    return DecisionMade(**known, verdict=Verdict.DENY, code=code, check=MEANINGS[code].check)


def person(name: str, *roles: str, purposes: tuple[str, ...] = ("people",)) -> Mapping[str, object]:
    return {
        "uid": {"type": "User", "id": name},
        "attrs": {
            "onLeave": False,
            "purposes": [{"__entity": {"type": "Purpose", "id": purpose}} for purpose in purposes],
        },
        "parents": [{"type": "Role", "id": role} for role in roles],
    }
