"""Names come from one table, and each topic has exactly one writer."""

import pytest

from sluicegate.streams.topology import (
    APPLICATION,
    DELIVERY,
    ENFORCER,
    PRODUCERS,
    REDACTOR,
    REPLIES,
    RUNNER,
    SEALED,
    SHORT_MS,
    TABLE,
    Topology,
)

TOPOLOGY = Topology(tenant="acme", partitions=3)


def test_the_request_path_has_one_partition_count_and_policy_one_partition() -> None:
    assert TOPOLOGY.topics == {
        "acme.requests": 3,
        "acme.decisions": 3,
        "acme.generations": 3,
        "acme.releases": 3,
        "acme.shadow": 3,
        "acme.refusals": 3,
        "acme.policy": 1,
        "acme.freshness": 1,
    }
    assert set(TOPOLOGY.configs(batch_bytes_max=1)) == set(TOPOLOGY.topics)
    assert TOPOLOGY.with_replies(["desk"])["acme.replies.desk"] == 3


def test_each_stage_reads_what_the_one_before_wrote_and_writes_one_sealed_topic() -> None:
    writers = [row.writer for row in TABLE if row.name in {sealed.topic for sealed in SEALED.values()}]
    assert writers == list(SEALED)
    assert [TOPOLOGY.source(stage) for stage in (ENFORCER, RUNNER, REDACTOR)] == [
        TOPOLOGY.requests,
        TOPOLOGY.decisions,
        TOPOLOGY.generations,
    ]
    for stage, sealed in SEALED.items():
        assert {stage} <= TOPOLOGY.row(TOPOLOGY.topic(sealed.topic)).readers, "a stage reads its own output back"
        assert stage in TOPOLOGY.row(TOPOLOGY.source(stage)).readers


def test_applications_read_what_delivery_writes_and_producers_read_nothing() -> None:
    rows = [*TABLE, REPLIES]
    assert {row.name for row in rows if APPLICATION in row.readers} == {"refusals", "replies"}
    assert {row.writer for row in rows if APPLICATION in row.readers} == {DELIVERY}
    assert not any(PRODUCERS in row.readers for row in rows)


def test_what_a_candidate_says_is_read_by_no_stage_that_a_request_passes() -> None:
    assert TOPOLOGY.row(TOPOLOGY.shadow).readers == {"shadow", "sink", "publisher"}
    assert {row.name for row in TABLE if row.writer == "shadow"} == {"shadow"}


def test_the_audit_lands_everything_but_the_copies() -> None:
    assert set(TOPOLOGY.topics) - set(TOPOLOGY.audited) == {TOPOLOGY.refusals, TOPOLOGY.freshness}


def test_the_broker_stamps_what_is_decided_by_time() -> None:
    configs = TOPOLOGY.configs(batch_bytes_max=1)
    stamped = {name for name, found in configs.items() if found["message.timestamp.type"] == "LogAppendTime"}
    assert stamped == {TOPOLOGY.requests, TOPOLOGY.policy, TOPOLOGY.freshness}


def test_the_policy_log_stays_for_ever_and_the_rest_as_long_as_settings_say() -> None:
    configs = TOPOLOGY.configs(batch_bytes_max=1, request_retention_ms=5, reply_retention_ms=7, replies=["desk"])
    assert {name: found["retention.ms"] for name, found in configs.items()} == {
        TOPOLOGY.requests: "5",
        TOPOLOGY.decisions: "5",
        TOPOLOGY.generations: "5",
        TOPOLOGY.releases: "5",
        TOPOLOGY.shadow: "5",
        TOPOLOGY.refusals: "7",
        TOPOLOGY.reply("desk"): "7",
        TOPOLOGY.policy: "-1",
        TOPOLOGY.freshness: str(SHORT_MS),
    }


@pytest.mark.parametrize("stage", SEALED)
def test_a_place_names_the_stage_that_alone_may_write_there(stage: str) -> None:
    place = TOPOLOGY.place(stage, env="e", epoch=2, partition=1)
    assert (place.topic, place.stage, place.tenant) == (f"acme.{SEALED[stage].topic}", stage, "acme")


@pytest.mark.parametrize("name", ["answers", "replies", "Requests", ""])
def test_a_topic_that_is_not_in_the_table_has_no_name(name: str) -> None:
    with pytest.raises(KeyError):
        TOPOLOGY.topic(name)


@pytest.mark.parametrize("name", ["", "Desk", "a.b", "-a", "a-", "ä", "a" * 64, "a\n"])
def test_a_reply_topic_is_called_by_a_plain_word(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a reply topic"):
        TOPOLOGY.reply(name)


def test_every_topic_finds_its_row_and_a_stranger_none() -> None:
    assert [TOPOLOGY.row(topic).name for topic in TOPOLOGY.topics] == [row.name for row in TABLE]
    assert TOPOLOGY.row(TOPOLOGY.reply("desk")) is REPLIES
    for stranger in ("requests", "other.requests", "acme.answers", "acme.replies", "acme.replies.", "acme.replies.A"):
        with pytest.raises(KeyError):
            TOPOLOGY.row(stranger)
