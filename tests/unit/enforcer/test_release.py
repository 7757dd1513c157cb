"""The redactor's stage: a generation becomes a release only under its effective grant; anything else refuses."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from stages import TOPICS, as_unsent, decision, place, sealed, verifier

from sluicegate.enforcer.detect import RuleTable, Scanner, compile_table
from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.release import Redactor, ReleaseConfig
from sluicegate.enforcer.seal import Effective, Void, as_landed
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import (
    DecisionMade,
    GenerationFinished,
    ModelRun,
    Obligation,
    Outcome,
    ReleaseMade,
    Role,
    Segment,
    ShapedMessage,
    Window,
)
from sluicegate.schemas.records import Record, Unsent

RULES = Path(__file__).parents[3] / "policies" / "redaction.yaml"
RUN = ModelRun(
    provider="test", graph_digest="g", tokenizer_digest="t", seed=0, prompt_tokens=1, output_tokens=1, finish="stop"
)
PHONE = Obligation(name="redact", value='{"PHONE":"label"}', policies=("p",))
NUMBERS = Obligation(name="numbers", value='"from_context"', policies=("p",))


@cache
def scanner() -> Scanner:
    return compile_table(RuleTable.parse(yaml.safe_load(RULES.read_text(encoding="utf-8"))))


def landed_decisions(*made: DecisionMade) -> dict[int, Record]:
    batch = sealed("enforcer", [as_unsent(each) for each in made], at=0, source_first=0, source_last=len(made) - 1)
    return {record.offset: record for record in as_landed(batch, place=place("enforcer"), base=0)}


def generation(of: Record, *, text: str | None = None, **changes: object) -> GenerationFinished:
    made = codec.decode(of.value, DecisionMade)
    finished = GenerationFinished(
        generation_id=f"g1-0-{of.offset}",
        source=source_of(of),
        window=Window(first=0, size=4),
        outcome=Outcome.ANSWERED if text is not None else Outcome.DENIED,
        code=Code.OK if text is not None else made.code,
        decision_id=made.decision_id,
        text=text,
        run=RUN if text is not None else None,
    )
    return replace(finished, **changes)  # type: ignore[arg-type]


def release(
    decisions: dict[int, Record], generations: list[GenerationFinished], *, rules_known: bool = True
) -> list[ReleaseMade]:
    unsent = [Unsent(key=b"k", value=codec.encode(each)) for each in generations]
    batch = sealed("runner", unsent, at=0, source_first=0, source_last=len(generations) - 1)
    return released(decisions, list(as_landed(batch, place=place("runner"), base=0)), rules_known=rules_known)


def redactor(decisions: dict[int, Record], *, rules_known: bool = True) -> Redactor:
    check = verifier("enforcer")

    def decision_at(offset: int) -> Effective | Void | None:
        record = decisions.get(offset)
        return None if record is None else check.verify(record)

    return Redactor(
        ReleaseConfig(epoch=1, partition=0, slice_bytes_max=900_000),
        generations=verifier("runner"),
        decision_at=decision_at,
        scanner_for=lambda _: scanner() if rules_known else None,
    )


def released(decisions: dict[int, Record], records: list[Record], *, rules_known: bool = True) -> list[ReleaseMade]:
    stage = redactor(decisions, rules_known=rules_known)
    proposal = stage.decide(records, frontier=0, time_ms=0, clock_ms=None)
    assert (proposal.source_first, proposal.source_last) == (0, records[-1].offset)
    return [codec.decode(output.value, ReleaseMade) for output in proposal.outputs]


ANSWER = "Call Mara at 020 7946 0958."


def test_an_answer_under_its_grant_is_released_as_policy_says() -> None:
    decisions = landed_decisions(decision(0), decision(1, obligations=(PHONE,)))
    plain, redacted = release(decisions, [generation(each, text=ANSWER) for each in decisions.values()])
    assert (plain.outcome, plain.text, plain.redactions) == (ReleaseOutcome.RELEASED, ANSWER, ())
    assert redacted.text == "Call Mara at [PHONE]."
    assert [(each.redaction_class, each.operator) for each in redacted.redactions] == [("PHONE", "label")]
    assert (redacted.request_offset, redacted.principal, redacted.withheld) == (1, 'User::"ana"', ("tickets.phone",))


@pytest.mark.parametrize("stopped", [{"d1-0-1"}, {"d1-0-0", "d1-0-1"}])
def test_nothing_leaves_of_what_is_stopped(stopped: set[str]) -> None:
    decisions = landed_decisions(decision(0), decision(1))
    stage = redactor(decisions)
    stage._is_stopped = lambda each: each.decision_id in stopped
    generations = [Unsent(key=b"k", value=codec.encode(generation(each, text=ANSWER))) for each in decisions.values()]
    batch = as_landed(sealed("runner", generations, at=0, source_first=0, source_last=1), place=place("runner"), base=0)
    proposal = stage.decide(batch, frontier=0, time_ms=0, clock_ms=None)
    made = [codec.decode(output.value, ReleaseMade) for output in proposal.outputs]
    refused = (ReleaseOutcome.REFUSED, Code.STOPPED, None)
    wanted = [
        refused if each in stopped else (ReleaseOutcome.RELEASED, Code.OK, ANSWER) for each in ("d1-0-0", "d1-0-1")
    ]
    assert [(each.outcome, each.code, each.text) for each in made] == wanted


def test_what_no_admitted_text_supports_is_labelled() -> None:
    decisions = landed_decisions(decision(0, obligations=(NUMBERS,)))
    (made,) = release(decisions, [generation(decisions[0], text="Call 020 7946 0958 within 14 days.")])
    assert made.text == "Call 020 7946 0958 within [unsupported] days."
    assert made.unsupported == 1


@pytest.mark.parametrize(
    ("pieces", "text", "wanted"),
    [
        # A public name and the rest of its word are read as one: so they are looked up.
        ([("message:0", "Is "), ("alias:bikes", "Project 12"), ("message:0", "2 it?")], "Project 122.", "Project 122."),
        ([("message:0", "Pay "), ("redacted:message:0", "[IBAN ...6819]")], "To [IBAN ...6819].", "To [IBAN ...6819]."),
        # A label, and the gate's own line feeds, support nothing; nor do two fields side by side what neither holds.
        ([("withheld:a.b", "700"), ("message:0", "How much?")], "It is 700.", "It is [unsupported]."),
        ([("field:a.b", "41"), ("field:a.c", "500")], "It is 41500.", "It is [unsupported]."),
    ],
)
def test_what_was_put_in_the_place_of_something_supports_an_answer(pieces, text, wanted) -> None:
    prompt = (ShapedMessage(role=Role.USER, segments=tuple(Segment(text=said, source=name) for name, said in pieces)),)
    decisions = landed_decisions(replace(decision(0, obligations=(NUMBERS,)), prompt=prompt))
    (made,) = release(decisions, [generation(decisions[0], text=text)])
    assert made.text == wanted


def test_a_denial_passes_with_its_reason() -> None:
    decisions = landed_decisions(decision(0, allow=False))
    (made,) = release(decisions, [generation(decisions[0])])
    assert (made.outcome, made.code, made.reason, made.text) == (
        ReleaseOutcome.DENIED,
        Code.DENIED,
        "not for you",
        None,
    )


def test_text_without_an_effective_allow_is_never_released() -> None:
    decisions = landed_decisions(decision(0, allow=False), decision(1), decision(2))
    forged = replace(decisions[2], value=codec.encode(decision(2, text="forged")))
    lies = [
        generation(decisions[0], text=ANSWER),  # an answer to a denial
        generation(decisions[1], text=ANSWER, source=replace(source_of(decisions[1]), digest=b"\x01" * 32)),
        generation(decisions[1], text=ANSWER, decision_id="d1-0-2"),
        generation(forged, text=ANSWER),
        generation(replace(decisions[1], offset=9), text=ANSWER),
        generation(decisions[1], text=ANSWER, run=None),
        generation(decisions[1], text=ANSWER),  # the positive control
    ]
    made = release({**decisions, 2: forged}, lies)
    assert [each.text for each in made] == [None] * 6 + [ANSWER]
    assert [each.code for each in made] == [
        Code.GENERATION_MISMATCH,
        Code.GENERATION_MISMATCH,
        Code.GENERATION_MISMATCH,
        Code.FORGED,
        Code.GENERATION_MISMATCH,
        Code.GENERATION_MISMATCH,
        Code.OK,
    ]


def test_foreign_generations_get_one_refusal_together() -> None:
    decisions = landed_decisions(decision(0))
    genuine = [Unsent(key=b"k", value=codec.encode(generation(decisions[0], text=ANSWER)))]
    batch = as_landed(sealed("runner", genuine, at=0, source_first=0, source_last=0), place=place("runner"), base=0)
    foreign = [replace(batch[0], offset=offset) for offset in (1, 2, 3)]
    made = released(decisions, [batch[0], *foreign])
    assert [(each.code, each.source.offset, each.source.count) for each in made] == [
        (Code.OK, 0, 1),
        (Code.FORGED, 1, 3),
    ]
    assert made[1].text is None
    assert foreign[0].topic == TOPICS["runner"]


def test_rules_that_are_not_known_release_nothing() -> None:
    decisions = landed_decisions(decision(0, obligations=(PHONE,)))
    (made,) = release(decisions, [generation(decisions[0], text=ANSWER)], rules_known=False)
    assert (made.outcome, made.code, made.text) == (ReleaseOutcome.REFUSED, Code.REDACTION_FAILED, None)


def test_an_answer_that_cannot_be_checked_is_not_released() -> None:
    decisions = landed_decisions(decision(0, obligations=(PHONE,)))
    (made,) = release(decisions, [generation(decisions[0], text="020 7946 0958 " * 100_000)])
    assert (made.outcome, made.code, made.text) == (ReleaseOutcome.REFUSED, Code.REDACTION_FAILED, None)


def test_a_runner_cannot_end_an_allowed_request_as_policy_would() -> None:
    """A runner's lie is a refusal of its own kind, and the answer of an honest one beside it stays."""
    decisions = landed_decisions(*(decision(offset) for offset in range(5)))
    lies = [
        generation(decisions[0], outcome=Outcome.DENIED, code=Code.DENIED),
        generation(decisions[1], outcome=Outcome.REFUSED, code=Code.DUPLICATE_OF),
        generation(decisions[2], outcome=Outcome.REFUSED, code=Code.OK),
        generation(decisions[3], text=ANSWER, code=Code.BLOCKED),
        generation(decisions[4], text=ANSWER),
    ]
    made = release(decisions, lies)
    assert [each.code for each in made] == [Code.GENERATION_MISMATCH] * 4 + [Code.OK]
    assert [each.text for each in made] == [None] * 4 + [ANSWER]


def test_a_denial_is_no_longer_one_when_the_runner_says_so() -> None:
    decisions = landed_decisions(decision(0, allow=False))
    (made,) = release(decisions, [generation(decisions[0], outcome=Outcome.EXPIRED, code=Code.EXPIRED)])
    assert (made.code, made.text) == (Code.GENERATION_MISMATCH, None)


def test_whoever_was_not_proved_gets_nothing_of_what_they_sent() -> None:
    """Their refusal stands where every application reads: no request id, no record key, no reason of the decoder."""
    secret = "MARA-LIND"
    nobody = replace(
        decision(0, allow=False),
        identity=None,
        request_id=secret,
        duplicate_of=secret,
        code=Code.POISON,
        reason=f"a member is called `{secret}`",
    )
    decisions = landed_decisions(nobody)
    unsent = [Unsent(key=secret.encode(), value=codec.encode(generation(decisions[0])))]
    batch = as_landed(sealed("runner", unsent, at=0, source_first=0, source_last=0), place=place("runner"), base=0)
    proposal = redactor(decisions).decide(list(batch), frontier=0, time_ms=0, clock_ms=None)
    assert [each.key for each in proposal.outputs] == [None]
    assert secret.encode() not in proposal.outputs[0].value
    made = codec.decode(proposal.outputs[0].value, ReleaseMade)
    assert (made.outcome, made.code, made.reason) == (
        ReleaseOutcome.REFUSED,
        Code.POISON,
        "the record cannot be read as a request",
    )
    assert (made.request_offset, made.decision_id) == (0, "d1-0-0"), "it is found by its place"


def test_a_release_says_when_to_ask_again() -> None:
    decisions = landed_decisions(decision(0), decision(1))
    failed, blocked = release(
        decisions,
        [
            generation(decisions[0], outcome=Outcome.FAILED, code=Code.MODEL_FAILED),
            generation(decisions[1], outcome=Outcome.BLOCKED, code=Code.BLOCKED),
        ],
    )
    assert (failed.outcome, failed.retryable, failed.retry_after_ms) == (ReleaseOutcome.REFUSED, True, 1_000)
    assert (blocked.outcome, blocked.retryable, blocked.retry_after_ms) == (ReleaseOutcome.BLOCKED, False, None)
