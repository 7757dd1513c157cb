"""Whatever comes of a request, it ends in exactly one release with the outcome of the table, delivered to one topic.

The real lanes of runner, redactor and delivery, over a log in memory; decisions are drawn, and what the model does.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory_log import MemoryLog
from releases import DESK, REFUSALS, RELEASES, lane
from stages import TOPICS, as_unsent, decision, sealed, signer, verifier

from sluicegate.enforcer.detect import RuleTable, Scanner, compile_table
from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.release import RUNNER_CODES, Redactor, ReleaseConfig
from sluicegate.enforcer.seal import Effective, verify_copy
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import GenerationFinished, ModelRun, ReleaseMade
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Unsent
from sluicegate.streams.generate import OUTCOMES, GenerationLane, Ran
from sluicegate.streams.lane import Lane
from sluicegate.streams.release import DecisionReader, ReleaseLane

RULES = Path(__file__).parents[2] / "policies" / "redaction.yaml"
RUN = ModelRun(
    provider="test", graph_digest="g", tokenizer_digest="t", seed=0, prompt_tokens=1, output_tokens=1, finish="stop"
)
NOW_MS = 5_000
MODEL_CODES = frozenset(OUTCOMES)
# What the gate denies with; it never sees a grant that is forged.
GATE_CODES = frozenset(code for code in Code if MEANINGS[code].check <= 7 and code is not Code.OK)
REDACTOR_CODES = frozenset({Code.FORGED, Code.GAP, Code.GENERATION_MISMATCH, Code.REDACTION_FAILED})
# Only these were found out before somebody was proved to have asked.
WITHOUT_IDENTITY = frozenset(
    code for code in GATE_CODES if MEANINGS[code].check <= 2 and code not in {Code.DUPLICATE_OF, Code.REQUEST_ID_REUSED}
) | {Code.POLICY_NOT_READY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What comes of one request: the gate's denial, or what the model ends with; `expired`: its deadline passed after
    the gate allowed it. `foreign`: how many forged decisions somebody writes behind it.
    """

    denied: Code | None = None
    ran: Code = Code.OK
    expired: bool = False
    foreign: int = 0

    @property
    def code(self) -> Code:
        """The code that its release must have."""
        if self.denied is not None:
            return self.denied
        return Code.EXPIRED if self.expired else self.ran


@cache
def scanner() -> Scanner:
    return compile_table(RuleTable.parse(yaml.safe_load(RULES.read_text(encoding="utf-8"))))


class DrawnModel:
    """Ends as each decision's fate says."""

    def __init__(self, fates: dict[str, Fate]) -> None:
        self._fates = fates

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        code = self._fates[grant.decision.decision_id].ran
        answered = code is Code.OK
        return Ran(code=code, text="Call Mara." if answered else None, run=RUN if answered else None)


def decide_all(log: MemoryLog, fates: list[Fate]) -> dict[int, Fate]:
    """Seals a decision for each fate, with the forged ones behind it; the fate of each decision by its offset."""
    placed: dict[int, Fate] = {}
    topic = TOPICS["enforcer"]
    for fate in fates:
        at = len(log.partitions.get((topic, 0), []))
        made = decision(at, allow=fate.denied is None, deadline_ms=NOW_MS - 1 if fate.expired else None)
        if fate.denied is not None:
            made = replace(made, code=fate.denied, check=MEANINGS[fate.denied].check, reason=None)
            if fate.denied in WITHOUT_IDENTITY:
                made = replace(made, identity=None)
        log.put(topic, 0, sealed("enforcer", [as_unsent(made)], at=at, source_first=at, source_last=at))
        log.put(topic, 0, [Unsent(key=b"k", value=codec.encode(made))] * fate.foreign)
        placed[at] = fate
    return placed


async def run_runner(log: MemoryLog, placed: dict[int, Fate]) -> None:
    fates = {f"d1-0-{offset}": fate for offset, fate in placed.items()}
    each = GenerationLane(
        broker=log,
        model=DrawnModel(fates),
        decisions=verifier("enforcer"),
        generations=verifier("runner"),
        signer=signer("runner"),
        window_size=4,
        slice_bytes_max=100_000,
        clock_ms=lambda: NOW_MS,
        may_append=lambda: True,
    )
    await each.recover()
    records = log.partitions[TOPICS["enforcer"], 0]
    await each.advance(records)
    while covered(log) < len(records):  # noqa: ASYNC110 - the condition is about the log, which tells nobody
        await asyncio.sleep(0)
    await each.close()


def covered(log: MemoryLog) -> int:
    folded = SealedLog(verifier("runner"), in_order=False)
    records = log.partitions.get((TOPICS["runner"], 0), [])
    effective = [each for each in records if isinstance(folded.observe(each), Effective)]
    return sum(codec.decode(each.value, GenerationFinished).source.count for each in effective)


async def run_redactor(log: MemoryLog, *, rules_known: bool) -> None:
    decisions = DecisionReader(log, verifier("enforcer"))
    stage = Redactor(
        ReleaseConfig(epoch=1, partition=0, slice_bytes_max=900_000),
        generations=verifier("runner"),
        decision_at=decisions.at,
        scanner_for=lambda _: scanner() if rules_known else None,
    )
    inner = Lane(
        broker=log,
        stage=stage,
        verifier=verifier("redactor"),
        signer=signer("redactor"),
        source_topic=TOPICS["runner"],
        output=ReleaseMade,
        slice_bytes_max=900_000,
        may_append=lambda: True,
    )
    each = ReleaseLane(inner=inner, stage=stage, decisions=decisions, generations=verifier("runner"))
    await each.recover()
    await each.advance(log.partitions[TOPICS["runner"], 0])


def released(log: MemoryLog) -> list[ReleaseMade]:
    folded = SealedLog(verifier("redactor"))
    records = log.partitions[RELEASES, 0]
    return [codec.decode(each.value, ReleaseMade) for each in records if isinstance(folded.observe(each), Effective)]


async def through_the_house(fates: list[Fate], *, rules_known: bool = True) -> tuple[MemoryLog, dict[int, Fate]]:
    log = MemoryLog()
    placed = decide_all(log, fates)
    async with asyncio.timeout(20):
        await run_runner(log, placed)
        await run_redactor(log, rules_known=rules_known)
        one = lane(log, replies={"desk": "desk"})
        await one.recover()
        await one.advance(log.partitions[RELEASES, 0])
    return log, placed


def check(log: MemoryLog, placed: dict[int, Fate]) -> None:
    made = [each for each in released(log) if each.request_offset is not None]
    assert Counter(each.request_offset for each in made) == Counter(list(placed)), "exactly one each"
    for each in made:
        fate = placed[each.request_offset or 0]
        meaning = MEANINGS[fate.code]
        assert (each.code, each.outcome) == (fate.code, meaning.outcome)
        assert (each.retryable, each.retry_after_ms) == (meaning.retryable, meaning.retry_after_ms)
        assert (each.text is None) == (each.outcome is not ReleaseOutcome.RELEASED)
        assert (each.reason is None) == (each.outcome is ReleaseOutcome.RELEASED)
        nobody = fate.denied in WITHOUT_IDENTITY
        assert (each.actor is None, each.request_id is None) == (nobody, nobody)
    for topic, nobody in ((DESK, False), (REFUSALS, True)):
        copies = [codec.decode(each.value, ReleaseMade) for each in log.partitions.get((topic, 0), [])]
        assert [each for each in copies if (each.actor is None) != nobody] == []
        wanted = {each.release_id for each in released(log) if (each.actor is None) == nobody}
        assert Counter(each.release_id for each in copies) == Counter(wanted)
        verdicts = [verify_copy(verifier("redactor"), each) for each in log.partitions.get((topic, 0), [])]
        assert all(isinstance(each, Effective) for each in verdicts)


FATES = st.one_of(
    st.builds(Fate, denied=st.sampled_from(sorted(GATE_CODES)), foreign=st.integers(0, 3)),
    st.builds(Fate, ran=st.sampled_from(sorted(MODEL_CODES)), foreign=st.integers(0, 3)),
    st.builds(Fate, expired=st.just(True)),
)
EVERY = [Fate(denied=code) for code in sorted(GATE_CODES)] + [Fate(ran=code) for code in sorted(MODEL_CODES)]


@settings(max_examples=15, deadline=None)
@given(fates=st.lists(FATES, min_size=1, max_size=20))
@example(fates=EVERY)
def test_every_request_ends_in_one_release_with_the_outcome_of_the_table(fates: list[Fate]) -> None:
    """Invariant 3."""
    check(*asyncio.run(through_the_house(fates)))


def test_without_rules_of_redaction_every_request_still_ends() -> None:
    log, placed = asyncio.run(through_the_house([Fate(), Fate(denied=Code.DENIED), Fate()], rules_known=False))
    codes = {each.request_offset: each.code for each in released(log)}
    assert codes == {0: Code.REDACTION_FAILED, 1: Code.DENIED, 2: Code.REDACTION_FAILED}
    assert len(placed) == len(released(log)) == 3


def test_the_stages_together_give_every_code_of_the_table() -> None:
    """A new code has to be put where its release is tried."""
    assert {Code.OK} | GATE_CODES | MODEL_CODES | REDACTOR_CODES == set(Code)
    assert MODEL_CODES - {Code.OK} <= RUNNER_CODES


def test_the_check_can_fail() -> None:
    """Positive control: a second release, and an answer in the wrong topic."""
    log, placed = asyncio.run(through_the_house([Fate(), Fate(denied=Code.POISON)]))
    check(log, placed)
    twice = {**placed, 7: Fate()}
    with pytest.raises(AssertionError, match="exactly one each"):
        check(log, twice)
    log.put(REFUSALS, 0, [Unsent(key=None, value=log.partitions[DESK, 0][0].value or b"")])
    with pytest.raises(AssertionError):
        check(log, placed)
