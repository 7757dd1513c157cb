"""A question and the rules go in, why it is decided as it is comes out; the only place that puts a decision's reasons
together for people who write policy.

All of it is the gate's own decision (`trial.decide`), read back: which policies matched, what each of their clauses is
worth (by the engine) and what it looked at, which policy stated which obligation, and what happens to each piece of the
prompt on its way in and out. Values of fields and texts of messages are not part of it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.detect import RedactionClass, Scanner
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.obligations import CATALOGUE, REASON, parse, value_json
from sluicegate.enforcer.redact import Operator, Redaction, redact
from sluicegate.policy.cases import Asked
from sluicegate.policy.coverage import Part, Reach, clause_place
from sluicegate.policy.near_miss import NearMiss, nearest
from sluicegate.policy.places import annotation_line
from sluicegate.policy.situation import rules_with
from sluicegate.policy.tree import Failed, Question, paths, text_of
from sluicegate.policy.trial import decide
from sluicegate.policy.values import text_at
from sluicegate.schemas.events import AliasUse, Clamp, DecisionMade, Ruling, ShapedMessage, Verdict
from sluicegate.schemas.ids import PolicyId
from sluicegate.schemas.meanings import MEANINGS

Kind = Literal["scope", "when", "unless"]
_WITHHELD_MAX: Final = 16
"""Fields for which the nearest miss is searched; a search costs up to a second."""
_HOW: Final = {"label": "a label in its place", "drop": "left out", "refuse": "the request is refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """A clause of a policy that matched: what it is worth (None: it failed), and each path that it read with what stood
    there, as Cedar.
    """

    kind: Kind
    text: str
    place: str
    holds: bool | None
    saw: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A policy that matched, or failed, with file and line."""

    policy: str
    effect: str
    place: str
    reason: str | None
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What one policy states for an obligation, where; `decides` where the merged value holds something of it."""

    policy: str
    place: str
    value: str
    decides: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """A merged obligation with all that was stated; `tightened` where somebody stated a looser value."""

    name: str
    value: str
    law: str
    stage: str
    stated: tuple[Stated, ...]

    @property
    def tightened(self) -> bool:
        """Whether a policy stated something looser, which would hold if the others were not there."""
        return any(not each.decides for each in self.stated) or len({each.value for each in self.stated}) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A kind of value that is found in what the model reads, and what becomes of it if the model repeats it."""

    redaction_class: str
    operator: str
    rule: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A field, or a message of the conversation, at both ends: whether it enters the prompt and by which policies, and
    what becomes of its values in the answer. `leaves` is empty where they leave as they are.
    """

    name: str
    enters: bool
    how: str
    policies: tuple[Matched, ...]
    leaves: tuple[Leaving, ...]
    nearest: tuple[NearMiss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a question is decided as it is. `missed`: where nothing permits it, the permits of the nearest misses."""

    asked: Asked
    decision: DecisionMade
    mend: str
    policies: tuple[Matched, ...]
    missed: tuple[Matched, ...]
    shape: tuple[Matched, ...]
    duties: tuple[Duty, ...]
    ends: tuple[Ends, ...]
    clamps: tuple[Clamp, ...]
    aliases: tuple[AliasUse, ...]
    nearest: tuple[NearMiss, ...]

    @property
    def allowed(self) -> bool:
        """The verdict."""
        return self.decision.verdict is Verdict.ALLOW

    @property
    def when(self) -> str:
        """The event time, as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.asked.time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_UNREADABLE: Final = Leaving(redaction_class="everything", operator="drop", rule="could-not-be-scanned", sources=())


def explain(asked: Asked, rules: Rules) -> Explanation:
    """Decides the question and says why.

    Raises:
        InvalidDirectory: entities that the question puts do not conform to the bundle's schema.
    """
    reader = _Reader(rules_with(rules, asked.put))
    decision = decide(asked, rules)
    last = decision.rulings[-1] if decision.rulings else None
    denied = decision.verdict is Verdict.DENY
    stopped = last if denied and last is not None and not last.allowed else None
    ways = nearest(asked, rules, reach=reader.reach) if denied else ()
    shape = next((each for each in decision.rulings if each.action == "shape"), None)
    access = next((each for each in decision.rulings if each.action == "generate"), None)
    fields = [each for each in decision.rulings if each.action == "read"]
    return Explanation(
        asked=asked,
        decision=decision,
        mend=MEANINGS[decision.code].mend,
        policies=reader.matched(stopped if denied else access),
        missed=reader.missed(stopped, ways),
        shape=() if shape is stopped else reader.matched(shape),
        duties=tuple(_duties(decision, reader)),
        ends=(*_fields(fields, asked, rules, decision, reader), *_messages(decision, rules)),
        clamps=decision.clamps,
        aliases=decision.aliases,
        nearest=ways,
    )


class _Reader:
    """What the engine and the bundle say of single policies."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.reach = Reach(rules.bundle)

    def matched(self, ruling: Ruling | None) -> tuple[Matched, ...]:
        """The policies that made a ruling what it is, or that failed in it."""
        if ruling is None:
            return ()
        known = [PolicyId(each) for each in (*ruling.policies, *ruling.errors) if each in self.rules.bundle.policies]
        return tuple(self._matched(policy, Question.of(ruling)) for policy in known)

    def missed(self, ruling: Ruling | None, ways: Iterable[NearMiss]) -> tuple[Matched, ...]:
        """What the permits of the nearest misses are worth for a question that no policy permits."""
        if ruling is None or ruling.policies or ruling.errors:
            return ()
        near = dict.fromkeys(PolicyId(each) for way in ways for each in way.policies)
        return tuple(self._matched(policy, Question.of(ruling)) for policy in near)

    def place(self, policy: PolicyId, annotation: str) -> str:
        """File and line of an annotation."""
        source = self.rules.bundle.policies[policy]
        return f"{source.file}:{annotation_line(source, annotation)}"

    def _matched(self, policy: PolicyId, question: Question) -> Matched:
        source = self.rules.bundle.policies[policy]
        values = self.reach.values(question, self.rules)
        return Matched(
            policy=policy,
            effect="forbid" if source.forbids else "permit",
            place=source.place(),
            reason=source.annotations.get(REASON),
            clauses=tuple(self._clauses(policy, question, values)),
        )

    def _clauses(self, policy: PolicyId, question: Question, values: Mapping[Part, bool | Failed]) -> Iterator[Clause]:
        source, tree = self.rules.bundle.policies[policy], self.reach.trees[policy]
        for part, expression in self.reach.parts.items():
            if part[0] != policy or part[1] == "action":
                continue
            number, value = part[1], values[part]
            scope = isinstance(number, str)
            yield Clause(
                kind="scope" if isinstance(number, str) else tree.conditions[number].kind,
                text=text_of(expression),
                place=source.place() if scope else clause_place(source, int(number)),
                holds=None if isinstance(value, Failed) else value,
                saw=tuple((path, text_at(path, question, self.rules)) for path in paths(expression)),
            )


def _duties(decision: DecisionMade, reader: _Reader) -> Iterator[Duty]:
    """Each merged obligation with every statement that went into it."""
    matching = sorted({policy for each in decision.rulings if each.action != "read" for policy in each.policies})
    policies = reader.rules.bundle.policies
    for merged in decision.obligations:
        entry = CATALOGUE[merged.name]
        stated = []
        for policy in map(PolicyId, matching):
            raw = policies[policy].annotations.get(merged.name)
            if raw is not None:
                stated.append(
                    Stated(
                        policy=policy,
                        place=reader.place(policy, merged.name),
                        value=value_json(parse(merged.name, raw)),
                        decides=policy in merged.policies,
                    )
                )
        yield Duty(name=merged.name, value=merged.value, law=entry.law.value, stage=entry.stage, stated=tuple(stated))


def _fields(
    rulings: Iterable[Ruling], asked: Asked, rules: Rules, decision: DecisionMade, reader: _Reader
) -> Iterator[Ends]:
    word = next((json.loads(each.value) for each in decision.obligations if each.name == "withheld"), "label")
    found = dict(_leaving(decision, rules))
    enters = "enters" if decision.prompt else "could enter"
    searched = 0
    for ruling in rulings:
        name = split_uid(ruling.resource)[1]
        ways: tuple[NearMiss, ...] = ()
        if not ruling.allowed and decision.verdict is Verdict.ALLOW and searched < _WITHHELD_MAX:
            searched += 1
            ways = nearest(asked, rules, wanted=name, reach=reader.reach)
        yield Ends(
            name=name,
            enters=ruling.allowed,
            how=f"{enters} the prompt" if ruling.allowed else f"withheld: {_HOW[word]}",
            policies=reader.matched(ruling),
            leaves=found.get(f"field:{name}", ()),
            nearest=ways,
        )


def _messages(decision: DecisionMade, rules: Rules) -> Iterator[Ends]:
    """The messages of the conversation that hold something which does not leave as it stands."""
    for source, leaves in _leaving(decision, rules):
        kind, _, index = source.partition(":")
        if kind == "message" and leaves:
            name = f"message {int(index) + 1}"
            yield Ends(name=name, enters=True, how="enters the prompt", policies=(), leaves=leaves, nearest=())


def _leaving(decision: DecisionMade, rules: Rules) -> Iterator[tuple[str, tuple[Leaving, ...]]]:
    """By source of the prompt, what the redactor would do with an answer that repeats the prompt word for word.

    Whole messages are scanned, since a rule may need a word beside the value.
    """
    duty = next((each for each in decision.obligations if each.name == "redact"), None)
    stated: dict[str, str] = {} if duty is None else json.loads(duty.value)
    operators = {RedactionClass(name): Operator(how) for name, how in stated.items()}
    policies = () if duty is None else duty.policies
    scanner = Scanner(rules.bundle.redaction)
    found: dict[str, dict[Leaving, None]] = {}
    for message in decision.prompt:
        made = redact(text=message.text(), scanner=scanner, operators=operators, numbers="free", admitted=())
        for source, start, end in _spans(message):
            inside = [each for each in made.findings if each.start < end and start < each.end]
            leaves = [_as_leaving(each, rules, policies) for each in inside] if made.checked else [_UNREADABLE]
            found.setdefault(source, {}).update(dict.fromkeys(leaves))
    for source, seen in found.items():
        yield source, tuple(seen)


def _as_leaving(made: Redaction, rules: Rules, policies: Iterable[str]) -> Leaving:
    stating = []
    for policy in map(PolicyId, policies):
        raw = rules.bundle.policies[policy].annotations["redact"]
        stated = parse("redact", raw)
        if isinstance(stated, Mapping) and made.class_ in stated:
            stating.append(policy)
    return Leaving(
        redaction_class=made.class_.value, operator=made.operator.value, rule=made.rule_id, sources=tuple(stating)
    )


def _spans(message: ShapedMessage) -> Iterator[tuple[str, int, int]]:
    """Source, start and end of each segment in the message's text."""
    at = 0
    for segment in message.segments:
        yield segment.source, at, at + len(segment.text)
        at += len(segment.text)
