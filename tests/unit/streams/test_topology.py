"""Names come from one table, and each topic has exactly one writer."""

import pytest

from sluicegate.streams.topology import ENFORCER, REDACTOR, RUNNER, SEALED, WRITERS, Topology

TOPOLOGY = Topology(tenant="acme", partitions=3)


def test_the_request_path_has_one_partition_count_and_policy_one_partition() -> None:
    assert TOPOLOGY.topics == {
        "acme.requests": 3,
        "acme.decisions": 3,
        "acme.generations": 3,
        "acme.releases": 3,
        "acme.policy": 1,
    }
    assert set(TOPOLOGY.configs(batch_bytes_max=1)) == set(TOPOLOGY.topics)


def test_each_topic_has_one_writer_and_each_stage_reads_what_the_one_before_wrote() -> None:
    writers = [writer for writer, _ in WRITERS.values()]
    assert len(writers) == len(set(writers))
    assert [TOPOLOGY.source(stage) for stage in (ENFORCER, RUNNER, REDACTOR)] == [
        TOPOLOGY.requests,
        TOPOLOGY.decisions,
        TOPOLOGY.generations,
    ]


def test_the_broker_stamps_requests() -> None:
    stamped = {name for name, found in TOPOLOGY.configs(batch_bytes_max=1).items() if "message.timestamp.type" in found}
    assert stamped == {TOPOLOGY.requests}


@pytest.mark.parametrize("stage", SEALED)
def test_a_place_names_the_stage_that_alone_may_write_there(stage: str) -> None:
    place = TOPOLOGY.place(stage, env="e", epoch=2, partition=1)
    assert (place.topic, place.stage, place.tenant) == (f"acme.{SEALED[stage].topic}", stage, "acme")


def test_a_topic_that_is_not_in_the_table_has_no_name() -> None:
    with pytest.raises(KeyError):
        TOPOLOGY.topic("answers")
