"""The three forms of a request through the gate whole, and releases in a registry's framing out of the redactor."""

import json
from dataclasses import replace

import msgspec
import pytest
from company import NOON_MS, document, gate, record, request
from memory_log import MemoryLog
from stages import TOPICS, decision, place, sealed, signer, verifier
from unit.enforcer.test_release import ANSWER, generation, landed_decisions, scanner

from sluicegate.enforcer.release import Redactor, ReleaseConfig
from sluicegate.enforcer.seal import Effective
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import DecisionMade, ReleaseMade, RequestSubmitted, Verdict
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.lane import Lane

IDS = {101: codec.LATEST[RequestSubmitted], 102: codec.LATEST[ReleaseMade]}
PHONE = document("tickets", ("text", "Mara Lind's phone number is "), ("phone", "020 7946 0958"), ("text", "."))
ASKED = request(documents=(PHONE,))
JSON = (("content-type", b"application/json"),)
CANARY = "canary-3307"


def as_json(body: object, **where: int) -> Record:
    """A proved record whose value is JSON; the proof is over these bytes, the header beside them."""
    found = record(json.dumps(body).encode(), **where)
    return replace(found, headers=(*found.headers, *JSON))


def decide(*records: Record, ids: dict[int, str] | None = None) -> list[DecisionMade]:
    found = gate(records[0].partition, schema_ids=IDS if ids is None else ids)
    proposal = found.decide(records, frontier=0, time_ms=0, clock_ms=None)
    again = gate(records[0].partition, schema_ids=IDS if ids is None else ids)
    assert again.decide(records, frontier=0, time_ms=0, clock_ms=None) == proposal
    return [codec.decode(output.value, DecisionMade) for output in proposal.outputs]


def test_every_form_is_decided_alike() -> None:
    (avro,) = decide(record(ASKED))
    for each in (
        as_json(msgspec.to_builtins(ASKED)),
        record(codec.encode(ASKED, schema_id=101)),
        replace(record(ASKED), headers=(*record(ASKED).headers, ("content-type", b"avro/binary"))),
    ):
        (found,) = decide(each)
        assert (found.verdict, found.code) == (Verdict.ALLOW, Code.OK)
        assert found.granted is not None
        assert avro.granted is not None
        # The seed comes from the digest of the bytes, where nobody asks for one.
        alike = replace(found, source=avro.source, granted=replace(found.granted, seed=avro.granted.seed))
        assert alike == avro


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (as_json(msgspec.to_builtins(ASKED) | {CANARY: CANARY}), "has a member that is not one of"),
        (as_json(msgspec.to_builtins(ASKED) | {"purpose": None, "model": CANARY}), "`purpose` must be a text"),
        (as_json([CANARY]), "must be an object"),
        (replace(record(ASKED), headers=(*record(ASKED).headers, *JSON)), "not strict JSON"),
        (record(msgspec.json.encode(ASKED)), "`content-type: application/json`"),
        (record(codec.encode(ASKED, schema_id=99)), "belongs to no released schema"),
        (record(codec.encode(ASKED, schema_id=102)), "a `ReleaseMade.v1` stands where"),
    ],
)
def test_what_cannot_be_read_is_a_sealed_denial_that_says_what_to_do(found: Record, says: str) -> None:
    (made,) = decide(found)
    assert (made.verdict, made.code, made.check, made.identity) == (Verdict.DENY, Code.POISON, 1, None)
    assert says in str(made.reason)
    assert CANARY not in codec.encode(made).decode("latin-1")


def test_without_a_registry_its_framing_is_poison() -> None:
    (made,) = decide(record(codec.encode(ASKED, schema_id=101)), ids={})
    assert (made.code, "none is configured" in str(made.reason)) == (Code.POISON, True)


def test_a_request_id_is_for_one_body_in_one_form() -> None:
    body = msgspec.to_builtins(ASKED)
    at = {"at_ms": NOON_MS}
    made = decide(as_json(body, offset=0, **at), as_json(body, offset=1, **at), replace(record(ASKED), offset=2))
    assert [each.code for each in made] == [Code.OK, Code.DUPLICATE_OF, Code.PROOF_REPLAYED]
    made = decide(as_json(body, offset=0, **at), record(ASKED, offset=1, **at))
    assert [each.code for each in made] == [Code.OK, Code.REQUEST_ID_REUSED]


def redactor(decisions: dict[int, Record], schema_id: int | None) -> Redactor:
    check = verifier("enforcer")
    return Redactor(
        ReleaseConfig(epoch=1, partition=0, slice_bytes_max=900_000, schema_id=schema_id),
        generations=verifier("runner"),
        decision_at=lambda offset: check.verify(decisions[offset]),
        scanner_for=lambda _: scanner(),
    )


def lane(log: MemoryLog, stage: Redactor, ids: dict[int, str]) -> Lane:
    return Lane(
        broker=log,
        stage=stage,
        verifier=verifier("redactor"),
        signer=signer("redactor"),
        source_topic=TOPICS["runner"],
        output=ReleaseMade,
        slice_bytes_max=100_000,
        may_append=lambda: True,
        schema_ids=ids,
    )


@pytest.mark.parametrize("schema_id", [None, 102])
async def test_releases_are_sealed_and_read_back_in_the_framing_they_have(schema_id: int | None) -> None:
    decisions = landed_decisions(decision(0), decision(1, allow=False))
    log = MemoryLog()
    unsent = [
        Unsent(key=b"k", value=codec.encode(generation(decisions[0], text=ANSWER))),
        Unsent(key=b"k", value=codec.encode(generation(decisions[1]))),
    ]
    log.put(TOPICS["runner"], 0, sealed("runner", unsent, at=0, source_first=0, source_last=1))
    first = lane(log, redactor(decisions, schema_id), IDS)
    assert await first.recover() == 0
    await first.advance(log.partitions[TOPICS["runner"], 0])
    records = log.partitions[place("redactor").topic, 0]
    check = verifier("redactor")
    assert [isinstance(check.verify(each), Effective) for each in records] == [True, True]
    front = codec.SINGLE_OBJECT if schema_id is None else b"\0\0\0\0\x66"
    assert [(each.value or b"").startswith(front) for each in records] == [True, True]
    releases = [codec.decode(each.value, ReleaseMade, ids=IDS) for each in records]
    assert [each.outcome for each in releases] == [ReleaseOutcome.RELEASED, ReleaseOutcome.DENIED]
    # Whoever takes over reads both framings back, and holds the input against the last of them.
    for next_id in (None, 102):
        assert await lane(log, redactor(decisions, next_id), IDS).recover() == 2
    if schema_id is not None:
        with pytest.raises(CodecError, match="none is configured"):
            await lane(log, redactor(decisions, None), {}).recover()
