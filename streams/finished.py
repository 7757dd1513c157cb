"""What the runner finished and has not yet appended: how one joins another, what of it is owed, its record; the only
place that makes a generation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sluicegate.enforcer.grant import Passed
from sluicegate.enforcer.seal import Place
from sluicegate.enforcer.window import Window
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import GenerationFinished, ModelRun, Outcome, Source
from sluicegate.schemas.events import Window as SealedWindow
from sluicegate.schemas.ids import generation_id
from sluicegate.schemas.records import Unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An output that waits for its append."""

    source: Source
    outcome: Outcome
    code: Code
    decision_id: str | None
    text: str | None
    run: ModelRun | None
    key: bytes | None


def refused(passed: Passed, key: bytes | None) -> Finished:
    """The output for a decision that is no grant."""
    return Finished(
        source=passed.source,
        outcome=Outcome.DENIED if passed.denied else Outcome.REFUSED,
        code=passed.code,
        decision_id=passed.decision_id,
        text=None,
        run=None,
        key=key,
    )


def joined(last: Finished | None, passed: Passed) -> Finished | None:
    """`last` with one more foreign record behind it, so that a flood of them is not doubled; None: they do not join."""
    if last is None or passed.code is not Code.FORGED or last.code is not Code.FORGED:
        return None
    run = last.source
    if run.offset + run.count != passed.source.offset:
        return None
    whole = Source(offset=run.offset, count=run.count + 1, digest=b"", timestamp_ms=run.timestamp_ms)
    return replace(last, source=whole)


def still_owed(finished: Finished, window: Window) -> Iterator[Finished]:
    """What of it has no output yet. A run may have landed in part: it grew while an append of it was in doubt."""
    source = finished.source
    owed = [at for at in range(source.offset, source.offset + source.count) if not window.is_done(at)]
    while owed:
        count = next((step for step, at in enumerate(owed) if at != owed[0] + step), len(owed))
        yield replace(finished, source=replace(source, offset=owed[0], count=count))
        owed = owed[count:]


def as_generation(finished: Finished, *, place: Place, window: SealedWindow) -> Unsent:
    """Its record, before the seal."""
    source = finished.source
    return Unsent(
        key=finished.key,
        value=codec.encode(
            GenerationFinished(
                generation_id=generation_id(epoch=place.epoch, partition=place.partition, offset=source.offset),
                source=source,
                window=window,
                outcome=finished.outcome,
                code=finished.code,
                decision_id=finished.decision_id,
                text=finished.text,
                run=finished.run,
            )
        ),
    )
