"""The reference: the gate's decisions by plain aiokafka, `getmany` and `send_batch`; no state, no recovery.

It is as fast as this job gets in Python on aiokafka, and keeps none of the enforcer's promises: a crash loses or
doubles decisions, a zombie's writes count, a proof can be spent twice.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from bench.doubles import without_proof
from bench.light import LightGate
from bench.stand import PARTITIONS, SLICE_RECORDS, RulesAt, Stand
from sluicegate.enforcer.gate import Gate
from sluicegate.enforcer.ports import Proposal
from sluicegate.enforcer.seal import Signer, seal_slice
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.topology import ENFORCER

POLL_MS = 100
SESSION_S = 30.0
"""It holds the loop while it decides: on a busy machine a shorter session ends meanwhile, and it answers twice."""


class Seals:
    """Signs what is written, as the enforcer does, for the offset at which it will stand while nobody else writes."""

    def __init__(self, stand: Stand, signer: Signer) -> None:
        self._stand = stand
        self._signer = signer
        self._ends = dict.fromkeys(range(PARTITIONS), 0)

    def seal(self, partition: int, proposal: Proposal) -> Sequence[Unsent]:
        """The proposal's outputs as one sealed slice."""
        at = self._ends[partition]
        self._ends[partition] += len(proposal.outputs)
        return seal_slice(
            proposal.outputs,
            place=self._stand.place(partition),
            at=at,
            source_first=proposal.source_first,
            source_last=proposal.source_last,
            time_ms=proposal.time_ms,
            policy_position=proposal.policy_position,
            signer=self._signer,
        )


async def run_raw(stand: Stand, rules_at: RulesAt, *, proof: bool, seals: bool = False) -> None:
    """Reads the task's source until every request is answered."""
    config, task = stand.config, stand.task
    sealer = Seals(stand, stand.installation.stage_signer(ENFORCER)) if seals else None
    # The embedded broker would let the group wait for most of a longer session before it joins.
    session_ms = int(1000 * (SESSION_S if task.broker == "kafka" else config.session_timeout_s))
    consumer = AIOKafkaConsumer(
        task.source,
        **config.connection(),
        group_id=stand.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=session_ms // 10,
        fetch_max_wait_ms=config.fetch_wait_ms,
        max_partition_fetch_bytes=config.fetch_bytes_max,
    )
    producer = AIOKafkaProducer(
        **config.connection(),
        acks="all",
        enable_idempotence=False,
        linger_ms=0,
        max_batch_size=config.batch_bytes_max,
        max_request_size=2 * config.batch_bytes_max,
    )
    gates = {partition: stand.gate(partition, rules_at) for partition in range(PARTITIONS)}
    with contextlib.nullcontext() if proof else without_proof():
        await consumer.start()
        await producer.start()
        try:
            while not stand.tally.done.is_set():
                found = await consumer.getmany(timeout_ms=POLL_MS, max_records=SLICE_RECORDS)
                await asyncio.gather(
                    *(
                        _answer(stand, producer, gates[each.partition], sealer, _records(each, found[each]))
                        for each in found
                    )
                )
        finally:
            await consumer.stop()
            await producer.stop()


def _records(place: TopicPartition, messages: Sequence[ConsumerRecord]) -> list[Record]:
    return [
        Record(
            topic=place.topic,
            partition=place.partition,
            offset=each.offset,
            timestamp_ms=each.timestamp,
            key=each.key,
            value=each.value,
            headers=tuple(each.headers),
        )
        for each in messages
    ]


async def _answer(
    stand: Stand, producer: AIOKafkaProducer, gate: Gate | LightGate, sealer: Seals | None, records: list[Record]
) -> None:
    time_ms = 0
    while records:
        proposal = gate.decide(records, frontier=records[0].offset, time_ms=time_ms, clock_ms=None)
        outputs = sealer.seal(records[0].partition, proposal) if sealer else proposal.outputs
        batch = producer.create_batch()
        for each in outputs:
            headers = [(name, value) for name, value in each.headers]
            if batch.append(timestamp=None, key=each.key, value=each.value, headers=headers) is None:
                raise ValueError("a batch of decisions is over the producer's limit")
        batch.close()
        sent = await producer.send_batch(batch, stand.task.output, partition=records[0].partition)
        await sent
        stand.tally.add(len(proposal.outputs))
        time_ms = proposal.time_ms
        records = [record for record in records if record.offset > proposal.source_last]
