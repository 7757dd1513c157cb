"""A gate whose decision costs next to nothing, so that what is left is the price of the worker around it."""

from collections.abc import Sequence

from sluicegate.enforcer.gate import GateConfig
from sluicegate.enforcer.ports import FORGETS, Memory, Proposal
from sluicegate.enforcer.seal import SEAL_BYTES_MAX, SLICE_RECORDS_MAX, Effective, source_digest
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Source, Verdict
from sluicegate.schemas.ids import decision_id
from sluicegate.schemas.records import Record, Unsent


class LightGate:
    """As `gate.Gate`, but it reads nothing of a request and allows it: one small decision a record."""

    def __init__(self, config: GateConfig) -> None:
        self._config = config

    @property
    def memory(self) -> Memory:
        """Nothing that is folded changes a decision."""
        return FORGETS

    def lose(self, time_ms: int) -> None:
        """There is nothing to lose."""

    def fold(self, effective: Effective) -> None:
        """Keeps nothing."""

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        """Decisions for a prefix of `records` that fits one slice."""
        del clock_ms
        outputs: list[Unsent] = []
        size, now = 0, time_ms
        for record in records[:SLICE_RECORDS_MAX]:
            now = max(now, record.timestamp_ms)
            outputs.append(Unsent(key=record.key, value=self._allow(record, now)))
            size += outputs[-1].size_bytes() + SEAL_BYTES_MAX
            if size > self._config.slice_bytes_max:
                outputs.pop()
                break
        last = records[len(outputs) - 1].offset
        return Proposal(outputs=tuple(outputs), source_first=frontier, source_last=last, time_ms=now, policy_position=0)

    def _allow(self, record: Record, time_ms: int) -> bytes:
        config = self._config
        return codec.encode(
            DecisionMade(
                decision_id=decision_id(epoch=config.epoch, partition=config.partition, offset=record.offset),
                source=Source(
                    offset=record.offset,
                    count=1,
                    digest=source_digest(record.key, record.value),
                    timestamp_ms=record.timestamp_ms,
                ),
                time_ms=time_ms,
                verdict=Verdict.ALLOW,
                code=Code.OK,
                check=0,
            )
        )
