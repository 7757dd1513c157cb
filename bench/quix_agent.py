"""The gate's decisions by quixstreams as its tutorial writes them: a dataframe that is applied message by message; no
seals, no state, at least once.
"""

from typing import Any

from quixstreams import Application, message_context

from bench.doubles import without_proof
from bench.stand import PARTITIONS, RulesAt, Stand
from sluicegate.schemas.records import Record


def run_quix(stand: Stand, rules_at: RulesAt) -> None:
    """Reads the task's source until every request is answered; it holds the thread, as its own loop does."""
    task = stand.task
    session_ms = int(stand.config.session_timeout_s * 1000)
    app = Application(
        broker_address=stand.config.bootstrap,
        consumer_group=stand.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        consumer_extra_config={"session.timeout.ms": session_ms, "heartbeat.interval.ms": session_ms // 10},
        producer_extra_config={"message.max.bytes": stand.config.batch_bytes_max},
        loglevel="ERROR",
        on_message_processed=lambda *_: stand.tally.add(1),
    )
    gates = {partition: stand.gate(partition, rules_at) for partition in range(PARTITIONS)}
    requests = app.topic(task.source, value_deserializer="bytes", key_deserializer="bytes")
    decisions = app.topic(task.output, value_serializer="bytes", key_serializer="bytes")

    def decide(value: bytes, key: bytes, timestamp: int, headers: Any) -> bytes:
        at = message_context()
        record = Record(
            topic=at.topic,
            partition=at.partition,
            offset=at.offset,
            timestamp_ms=timestamp,
            key=key,
            value=value,
            headers=tuple(headers or ()),
        )
        proposal = gates[record.partition].decide([record], frontier=record.offset, time_ms=0, clock_ms=None)
        return proposal.outputs[-1].value or b""

    # The same key, and the same hash as ours: partition p answers partition p.
    app.dataframe(requests).apply(decide, metadata=True).to_topic(decisions)
    with without_proof():
        app.run(count=task.total, collect=False)
