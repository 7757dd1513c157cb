"""Whatever stands on the request topic gets one sealed deny with its code, stays whole, and holds nobody up."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from bad_records import CASES, HOUR_S, POISON, Case, said
from by_hand import PERSON, Producer, Sent, Street
from fixtures_stack import Row, StackPlace, broker_of, effective, landed

from sluicegate.dev_client import Client, Prepared
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import DecisionMade, RequestSubmitted, Role
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.settings import Settings
from sluicegate.streams.topology import ENFORCER


@dataclass(frozen=True, kw_only=True)
class Day:
    """Everything that was sent in one run, and what the audit holds of it."""

    cases: dict[str, Sent]
    genuine: list[Sent]
    repeats: dict[str, Sent]
    refused_by_broker: list[str]
    settings: Settings
    pids: tuple[dict[str, int], dict[str, int]]
    requests: dict[tuple[int, int], Row]
    decisions: dict[tuple[int, int], list[Row]]
    dead: list[Row]

    @property
    def all(self) -> list[Sent]:
        return [*self.cases.values(), *self.genuine, *self.repeats.values()]


async def spend(place: StackPlace) -> Day:
    settings = place.attached()
    before = place.pids()
    async with Client(settings) as client, broker_of(settings) as broker:
        now_s = client._clock.now_ms() // 1000
        producer, street = Producer(settings, now_s), Street(client, broker, now_s)
        cases, genuine, refused = {}, [], []
        for number, case in enumerate(CASES):
            record = case.make(producer)
            if case.late_s and place.stamped_by_broker:
                # The stamp that the producer gives is not the record's: there is nothing wrong with it.
                genuine.append(await street.put(record, late_s=case.late_s))
            elif case.embedded and place.stamped_by_broker:
                with pytest.raises(ConfigurationError, match="refuses a batch"):
                    await street.put(record)
                refused.append(case.name)
            else:
                cases[case.name] = await street.put(record, beside=case.beside, late_s=case.late_s)
            if number % 12 == 0:
                person = (PERSON, "ian.intern")[number % 24 == 0]
                genuine.append(await street.put(producer.prove(producer.ask(), person=person)))
        first = producer.prove(producer.ask())
        asked = codec.decode(first.value, RequestSubmitted)
        repeats = {
            "first": await street.put(first),
            "the record again": await street.put(first),
            "the same request again": await street.put(producer.prove(asked)),
            "another under its id": await street.put(
                producer.prove(replace(asked, messages=said(Role.USER, "And then?")))
            ),
        }
        genuine.append(await street.put(producer.prove(producer.ask())))
        day = {name: await street.released(put) for name, put in cases.items()}
        told = [await street.released(put) for put in genuine]
        again = {name: await street.released(put) for name, put in repeats.items()}
    await landed(place, settings)
    requests = place.sql(
        "SELECT partition, offset, length(value) AS bytes, hex(SHA256(value)) AS digest, hex(key) AS key_hex, "
        "arrayMap(h -> h.name, headers) AS headers, undecodable FROM requests WHERE epoch = 1"
    )
    decisions = place.sql(
        "SELECT d.partition AS partition, d.offset AS offset, d.source_offset AS source_offset, "
        "d.source_count AS source_count, d.verdict AS verdict, d.code AS code, d.decision_id AS decision_id, "
        "d.reason AS reason, g.ran AS ran FROM decisions AS d LEFT JOIN generations AS g ON g.epoch = d.epoch "
        "AND g.partition = d.partition AND g.source_offset = d.offset WHERE d.epoch = 1 AND d.effective AND g.effective"
    )
    at: dict[tuple[int, int], list[Row]] = {}
    for row in decisions:
        for offset in range(row["source_offset"], row["source_offset"] + row["source_count"]):
            at.setdefault((row["partition"], offset), []).append(row)
    return Day(
        cases=day,
        genuine=told,
        repeats=again,
        refused_by_broker=refused,
        settings=settings,
        pids=(before, place.pids()),
        requests={(row["partition"], row["offset"]): row for row in requests},
        decisions=at,
        dead=place.sql("SELECT * FROM dead_letters WHERE topic LIKE '%.requests' AND epoch = 1"),
    )


@pytest.fixture(scope="module")
def day(stack: StackPlace) -> Day:
    return asyncio.run(spend(stack))


def is_denied(day: Day, sent: Sent, code: Code) -> None:
    """One deny with its code, sealed, and the record whole in the audit."""
    release = sent.release
    assert (release.outcome, release.code, release.text) == (MEANINGS[code].outcome, code, None)
    decided = day.decisions[sent.key.partition, sent.key.offset]
    assert [(row["verdict"], row["code"], row["ran"], row["source_count"]) for row in decided] == [
        ("DENY", code.value, False, 1)
    ]
    is_whole(day.requests[sent.key.partition, sent.key.offset], sent.record)


def is_whole(kept: Row, record: Prepared) -> None:
    assert kept["bytes"] == (None if record.value is None else len(record.value))
    digest = None if record.value is None else hashlib.sha256(record.value).hexdigest().upper()
    assert kept["digest"] == digest
    assert bytes.fromhex(kept["key_hex"]) == record.key
    assert kept["headers"] == [name for name, _ in record.headers if name != "sg-token"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_bad_record_gets_one_deny_with_its_code_and_stays_whole(day: Day, case: Case, stack: StackPlace) -> None:
    """Invariants 3 and 7."""
    if case.embedded and stack.stamped_by_broker:
        assert case.name not in day.cases
        return
    is_denied(day, day.cases[case.name], case.code)


def test_genuine_requests_between_them_are_answered(day: Day) -> None:
    assert len(day.genuine) >= 5
    assert {sent.key.partition for sent in day.all} == {0, 1}
    for sent in day.genuine:
        assert (sent.release.outcome, sent.release.code) == (ReleaseOutcome.RELEASED, Code.OK)
        assert sent.release.text
        is_whole(day.requests[sent.key.partition, sent.key.offset], sent.record)
        assert [row["ran"] for row in day.decisions[sent.key.partition, sent.key.offset]] == [True]


def test_apache_kafka_believes_no_stamp_and_takes_nothing_over_its_limit(day: Day, stack: StackPlace) -> None:
    """What the embedded broker lets through (cases `embedded`); there the gate is what denies it."""
    sent = len([case for case in CASES if not case.embedded])
    if not stack.stamped_by_broker:
        assert len(day.cases) == len(CASES) > sent
        return
    assert (len(day.cases), day.refused_by_broker) == (sent, ["5 MB"])
    stamps = stack.sql(
        "SELECT dateDiff('second', min(timestamp), max(timestamp)) AS span FROM requests WHERE epoch = 1 "
        f"AND partition = {day.genuine[0].key.partition}"
    )
    assert stamps[0]["span"] < HOUR_S / 2


def test_a_repeat_is_decided_once_and_names_the_first(day: Day) -> None:
    first = day.repeats["first"]
    assert first.release.outcome is ReleaseOutcome.RELEASED
    is_denied(day, day.repeats["the record again"], Code.PROOF_REPLAYED)
    is_denied(day, day.repeats["the same request again"], Code.DUPLICATE_OF)
    is_denied(day, day.repeats["another under its id"], Code.REQUEST_ID_REUSED)
    assert day.repeats["the same request again"].release.duplicate_of == first.release.decision_id


def test_dead_letters_list_what_cannot_be_read_and_nothing_else(day: Day) -> None:
    ours = {(sent.key.partition, sent.key.offset): sent for sent in day.all}
    found = [row for row in day.dead if (row["partition"], row["offset"]) in ours]
    wanted = {
        (sent.key.partition, sent.key.offset) for case in CASES if case.undecodable for sent in [day.cases[case.name]]
    }
    assert Counter((row["partition"], row["offset"]) for row in found) == Counter(wanted)
    assert len(wanted) == len(POISON) + 1
    for row in found:
        sent = ours[row["partition"], row["offset"]]
        value = sent.record.value
        assert (row["code"], row["value_hex"]) == ("POISON", None if value is None else value.hex().upper())
        assert row["reason"]
        assert row["decision_id"] == sent.release.decision_id


async def test_every_request_has_one_effective_decision_by_the_keys_alone(day: Day) -> None:
    """Invariant 3, from the topic and with no help of the stack's."""
    answered: Counter[tuple[int, int]] = Counter()
    async with broker_of(day.settings) as broker:
        for partition in range(day.settings.partitions):
            for record in await effective(broker, day.settings, ENFORCER, partition):
                answered[partition, codec.decode(record.value, DecisionMade).source.offset] += 1
    assert [answered[sent.key.partition, sent.key.offset] for sent in day.all] == [1] * len(day.all)


def test_no_stage_went_down_and_nobody_asked_the_model_but_genuine_ones(day: Day, stack: StackPlace) -> None:
    """Invariant 1: the counters are the audit's own."""
    assert day.pids[0] == day.pids[1]
    ours = {(sent.key.partition, sent.key.offset) for sent in day.all}
    ran = sum(row["ran"] for place, rows in day.decisions.items() if place in ours for row in rows)
    assert ran == len(day.genuine) + 1
    assert stack.sql("SELECT * FROM coverage") == []


def test_a_reason_says_nothing_of_what_was_sent(day: Day) -> None:
    """Invariant 12: what a requester or a log reads about a refusal holds no part of the request."""
    texts = [row["reason"] or "" for rows in day.decisions.values() for row in rows]
    assert any(texts)
    for text in texts:
        assert not [word for word in ("gpt-17", "mischief", "mallory", "margin", "obey") if word in text]


def test_every_way_in_is_tried() -> None:
    """The codes of checks 1 to 7 that a producer can cause on a whole stack, each at least once."""
    tried = {case.code for case in CASES} | {Code.PROOF_REPLAYED, Code.DUPLICATE_OF, Code.REQUEST_ID_REUSED}
    elsewhere: Sequence[Code] = (
        Code.GAP,  # the broker loses a record
        Code.STOPPED,  # somebody with the key for it says so
        Code.POLICY_STALE,  # somebody holds the policy log back
        Code.POLICY_NOT_READY,
        Code.POLICY_ERROR,  # these seven need another policy
        Code.UNKNOWN_ACTOR,
        Code.WITHHELD_REFUSED,
        Code.SHAPE_DENIED,
        Code.OBLIGATION_CONFLICT,
        Code.OBLIGATION_UNSUPPORTED,
        Code.OVER_LIMIT,
        Code.PROMPT_NOT_CHECKED,
    )
    first = list(Code)[list(Code).index(Code.POISON) : list(Code).index(Code.FORGED)]
    assert set(first) == tried | set(elsewhere)
