"""The enforcer as `wiring` builds it, on either worker shell, with or without the doubles: contenders of the bench."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from bench.doubles import Unsealed, without_proof
from bench.stand import PARTITIONS, Stand
from bench.tally import Tallied
from sluicegate.enforcer.seal import Verifier
from sluicegate.schemas.events import DecisionMade
from sluicegate.streams.enforce import run_faust
from sluicegate.streams.kafka import Broker
from sluicegate.streams.lane import Lane
from sluicegate.streams.loop import run_group
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.ports import PartitionLane
from sluicegate.streams.topology import ENFORCER


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which of the enforcer's parts take part."""

    faust: bool = True
    proof: bool = True
    seals: bool = True


async def run_enforcer(stand: Stand, broker: Broker, policy: PolicyTail, shape: Shape) -> None:
    """Serves the task's source until every request is answered."""
    signer = stand.installation.stage_signer(ENFORCER)
    unsealed = Unsealed()
    make_verifier = Verifier if shape.seals else unsealed.verifier
    log = Tallied(broker, stand.tally)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        return Lane(
            broker=log,
            source_topic=stand.task.source,
            verifier=make_verifier(stand.place(partition), lambda: policy.stage_keys(ENFORCER)),
            stage=stand.gate(partition, policy.rules_at),
            signer=signer,
            output=DecisionMade,
            slice_bytes_max=stand.settings.slice_bytes_max,
            may_append=may_append,
        )

    shell = run_faust if shape.faust else run_group
    with contextlib.ExitStack() as doubles:
        if not shape.proof:
            doubles.enter_context(without_proof())
        if not shape.seals:
            doubles.enter_context(unsealed.patched())
        await shell(
            stand.config,
            topic=stand.task.source,
            partitions=PARTITIONS,
            group=stand.group,
            stopping=stand.tally.done,
            session_timeout_s=stand.settings.session_timeout_s,
            make_lane=make_lane,
            ready=lambda: None,
        )
