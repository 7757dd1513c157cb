"""The gate's decisions by a stock Faust agent as its tutorial writes one: event by event, `topic.send`; no seals."""

from typing import Any

import faust

from bench.doubles import without_proof
from bench.stand import PARTITIONS, RulesAt, Stand
from sluicegate.schemas.records import Record


async def run_naive(stand: Stand, rules_at: RulesAt) -> None:
    """Reads the task's source until every request is answered."""
    app = faust.App(
        stand.group,
        broker=f"kafka://{stand.config.bootstrap}",
        broker_session_timeout=stand.settings.session_timeout_s,
        broker_heartbeat_interval=stand.settings.session_timeout_s / 10,
        broker_rebalance_timeout=stand.settings.session_timeout_s,
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        autodiscover=False,
        topic_allow_declare=False,  # the bench makes the topics
        topic_disable_leader=True,
    )
    gates = {partition: stand.gate(partition, rules_at) for partition in range(PARTITIONS)}
    requests = app.topic(stand.task.source, key_type=bytes, value_type=bytes)
    decisions = app.topic(stand.task.output, key_type=bytes, value_type=bytes)

    @app.agent(requests)
    async def decide(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            record = Record(
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                timestamp_ms=round(message.timestamp * 1000),
                key=message.key,
                value=message.value,
                headers=tuple(message.headers),
            )
            gate = gates[record.partition]
            proposal = gate.decide([record], frontier=record.offset, time_ms=0, clock_ms=None)
            for each in proposal.outputs:
                await decisions.send(key=each.key, value=each.value, partition=record.partition)
                stand.tally.add(1)

    with without_proof():
        await app.start()
        try:
            await stand.tally.done.wait()
        finally:
            await app.stop()
