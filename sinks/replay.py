"""The audit and a candidate bundle go in, what would have been decided otherwise comes out; the only place that
replays.

Rows are rulings, not requests, because the most dangerous change flips no verdict: a field is read that was not read
before. Each stored `generate`, `shape` and `read` is decided twice with Cedar: under the bundle that decided it (a
mismatch means that the record or the engine changed, and the rest of the report is worth nothing) and under the
candidate, each time with the directory of that decision. Then each request is judged whole, twice too, for its
verdict, the fields that a newly allowed request would read, and its obligations. What lacks an input is counted as
not replayable, never guessed.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.bundle import Bundle, digest_of, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory, split_uid
from sluicegate.enforcer.judgement import Ask, Judgement
from sluicegate.schemas.codec import decode
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import CodecError, InvalidBundle, InvalidDirectory, Unavailable
from sluicegate.schemas.events import DecisionMade, Obligation, RequestSubmitted, Ruling
from sluicegate.sinks.auditor import Auditor, literal
from sluicegate.sinks.replay_report import FieldChange, ObligationChange, Report, VerdictChange
from sluicegate.sinks.rows import CONTENT_TYPES, stored_request

PAGE_DECISIONS = 200
Progress = Callable[[int, int], None]
"""Called with the rulings done and the rulings there are."""


def replay(auditor: Auditor, candidate: bytes, *, progress: Progress | None = None) -> Report:
    """Decides the whole history again under the bundle `candidate` (its canonical content).

    Raises:
        InvalidBundle: the candidate does not validate.
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    run = _Replay(auditor, candidate)
    total = _count(auditor)
    for decision, request in _history(auditor):
        run.take(decision, request)
        if progress is not None:
            progress(min(run.seen, total), total)
    return run.report()


@dataclass(slots=True)
class _Replay:
    """The state of one replay: engines by directory, and what was found so far."""

    auditor: Auditor
    candidate: bytes
    seen: int = 0
    decided: int = 0
    requests: int = 0
    mismatches: list[str] = field(default_factory=list)
    not_replayable: Counter[str] = field(default_factory=Counter)
    newly_readable: list[FieldChange] = field(default_factory=list)
    no_longer_readable: list[FieldChange] = field(default_factory=list)
    newly_allowed: list[VerdictChange] = field(default_factory=list)
    newly_denied: list[VerdictChange] = field(default_factory=list)
    obligations: list[ObligationChange] = field(default_factory=list)
    prompts_changed: list[str] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)
    _bundle: Bundle = field(init=False)
    _contents: dict[str, bytes | None] = field(default_factory=dict)
    _engines: dict[tuple[str, str], Rules | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bundle = load_bundle(self.candidate)

    def take(self, decision: DecisionMade, request: RequestSubmitted | None) -> None:
        """Decides every ruling of one decision again, then judges its request whole."""
        policy = decision.policy
        self.seen += len(decision.rulings)
        if policy is None or not decision.rulings:
            return
        then = self._rules(policy.bundle_digest, policy.directory_digest)
        now = self._rules(self._bundle.digest, policy.directory_digest)
        for rules in (then, now):
            if isinstance(rules, str):
                self.not_replayable[rules] += len(decision.rulings)
                return
        assert isinstance(then, Rules) and isinstance(now, Rules)  # noqa: PT018 - one fact, for the type checker
        self.recorded.add(policy.bundle_digest)
        for ruling in decision.rulings:
            question = (ruling.action, ruling.principal, ruling.resource, ruling.context)
            if then.decider.rule(*question) != ruling:
                self.mismatches.append(f"{decision.decision_id} {ruling.action} {ruling.resource}")
            self._compare(decision, request, ruling, now.decider.rule(*question))
            self.decided += 1
        self.requests += 1
        self._judge(decision, request, then, now)

    def _compare(self, decision: DecisionMade, request: RequestSubmitted | None, before: Ruling, after: Ruling) -> None:
        if before.action != "read" or before.allowed == after.allowed:
            return
        change = self._field_change(decision, request, after if after.allowed else before)
        (self.newly_readable if after.allowed else self.no_longer_readable).append(change)

    def _judge(self, decision: DecisionMade, request: RequestSubmitted | None, then: Rules, now: Rules) -> None:
        if request is None or decision.identity is None:
            self.not_replayable["the audit does not hold the request"] += 1
            return
        ask = Ask(
            principal=split_uid(decision.identity.principal),
            actor=split_uid(decision.identity.actor),
            request=request,
            time_ms=decision.time_ms,
            default_seed=0 if decision.granted is None else decision.granted.seed,
        )
        again = judge(then, ask)
        if _decided(again) != _decided(decision):
            self.mismatches.append(f"{decision.decision_id} as a whole")
        judgement = judge(now, ask)
        allowed_before, allowed_after = decision.code is Code.OK, judgement.code is Code.OK
        if allowed_before != allowed_after:
            change = VerdictChange(
                request=decision.request_id or decision.decision_id,
                principal=decision.identity.principal,
                model=decision.model or "",
                before=str(decision.code),
                after=str(judgement.code),
                policies=judgement.determining or decision.determining,
            )
            (self.newly_allowed if allowed_after else self.newly_denied).append(change)
        if allowed_before and allowed_after:
            self.obligations += _obligation_changes(decision, judgement)
            if judgement.prompt != decision.prompt:
                self.prompts_changed.append(decision.request_id or decision.decision_id)
        self._never_asked(decision, request, judgement)

    def _never_asked(self, decision: DecisionMade, request: RequestSubmitted, judgement: Judgement) -> None:
        """Fields that the candidate lets in where history stopped before it asked about them."""
        asked = {ruling.resource for ruling in decision.rulings if ruling.action == "read"}
        for ruling in judgement.rulings:
            if (
                ruling.action == "read"
                and ruling.allowed
                and ruling.resource not in asked
                and judgement.code is Code.OK
            ):
                self.newly_readable.append(self._field_change(decision, request, ruling))

    def _field_change(self, decision: DecisionMade, request: RequestSubmitted | None, ruling: Ruling) -> FieldChange:
        name = split_uid(ruling.resource)[1]
        places = (self._bundle.policies[each].place() for each in self._bundle.policies if each in ruling.policies)
        return FieldChange(
            field=name,
            principal=ruling.principal,
            request=decision.request_id or decision.decision_id,
            policies=ruling.policies,
            places=tuple(places),
            text=_text_of(request, name),
        )

    def _rules(self, bundle_digest: str, directory_digest: str) -> Rules | str:
        """The engine for a bundle and a directory of then, or why there is none."""
        key = (bundle_digest, directory_digest)
        if key not in self._engines:
            self._engines[key] = self._load(bundle_digest, directory_digest)
        return self._engines[key]

    def _load(self, bundle_digest: str, directory_digest: str) -> Rules | str:
        directory = self._content("DIRECTORY", directory_digest)
        content = self.candidate if bundle_digest == self._bundle.digest else self._content("BUNDLE", bundle_digest)
        if directory is None:
            return "the audit does not hold the directory that decided"
        if content is None:
            return "the audit does not hold the bundle that decided"
        try:
            bundle = self._bundle if bundle_digest == self._bundle.digest else load_bundle(content)
            entities = load_directory(directory, bundle)
        except InvalidBundle:
            return "the bundle that decided does not load in this release"
        except InvalidDirectory:
            return "the directory that decided does not conform to the bundle's schema"
        # No memo: each row is decided by the engine, however often its like was.
        return Rules(bundle=bundle, directory=entities, decider=Decider(bundle, entities, remembered_max=0))

    def _content(self, kind: str, digest: str) -> bytes | None:
        """A policy version as the audit holds it, if its digest is right."""
        if digest not in self._contents:
            found = self.auditor.sql(
                f"SELECT hex(content) FROM policy WHERE effective = 1 AND kind = {literal(kind)} "  # noqa: S608
                f"AND content_digest = {literal(digest)} LIMIT 1"
            ).rows
            content = bytes.fromhex(str(found[0][0])) if found else None
            self._contents[digest] = content if content is not None and digest_of(content) == digest else None
        return self._contents[digest]

    def report(self) -> Report:
        """What was found, each change once."""
        return Report(
            candidate=self._bundle.digest,
            recorded=tuple(sorted(self.recorded)),
            requests=self.requests,
            decided=self.decided,
            mismatches=tuple(self.mismatches),
            not_replayable=dict(self.not_replayable),
            newly_readable=tuple(dict.fromkeys(self.newly_readable)),
            no_longer_readable=tuple(dict.fromkeys(self.no_longer_readable)),
            newly_allowed=tuple(self.newly_allowed),
            newly_denied=tuple(self.newly_denied),
            obligations_changed=tuple(self.obligations),
            prompts_changed=tuple(self.prompts_changed),
            files_changed=self._files_changed(),
        )

    def _files_changed(self) -> tuple[str, ...]:
        """Files of the candidate, other than policies, that differ from what decided: templates, terms, rules, ..."""
        after = json.loads(self.candidate)
        changed: set[str] = set()
        for digest in self.recorded:
            before = json.loads(self._contents.get(digest) or self.candidate)
            changed |= {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return tuple(sorted(name for name in changed if not name.endswith(".cedar")))


def _decided(made: DecisionMade | Judgement) -> tuple[object, ...]:
    """What policy determines of a decision."""
    return (
        made.code,
        made.determining,
        made.obligations,
        made.prompt,
        made.clamps,
        made.admitted,
        made.withheld,
        made.aliases,
    )


def _obligation_changes(decision: DecisionMade, judgement: Judgement) -> Iterator[ObligationChange]:
    """Obligations with another value than then, or from other policies."""
    before = {each.name: each for each in decision.obligations}
    after = {each.name: each for each in judgement.obligations}
    for name in sorted(before.keys() | after.keys()):
        then, now = before.get(name), after.get(name)
        if then != now:
            yield ObligationChange(
                request=decision.request_id or decision.decision_id,
                principal=decision.identity.principal if decision.identity else "",
                name=name,
                before=_value(then),
                after=_value(now),
            )


def _value(obligation: Obligation | None) -> str:
    return "-" if obligation is None else f"{obligation.value} ({', '.join(obligation.policies)})"


def _text_of(request: RequestSubmitted | None, name: str) -> str:
    """What the request held in a field, for people who may read the audit."""
    if request is None:
        return ""
    pieces = [
        piece.text
        for document in request.documents
        for piece in document.fields
        if f"{document.dataset}.{piece.name}" == name
    ]
    return " ".join(pieces)


def _count(auditor: Auditor) -> int:
    total = auditor.sql("SELECT count() FROM rulings").rows[0][0]
    return total if isinstance(total, int) else 0


def _history(auditor: Auditor) -> Iterator[tuple[DecisionMade, RequestSubmitted | None]]:
    """Every effective decision that holds rulings, in the order of the log, with its request where it can be read."""
    after = (-1, -1, -1)
    size = PAGE_DECISIONS
    while True:
        try:
            rows = auditor.sql(_page(after, size)).rows
        except Unavailable:
            # Large prompts: ask for fewer of them.
            if size == 1:
                raise
            size = max(1, size // 4)
            continue
        if not rows:
            return
        for row in rows:
            epoch, partition, offset = (int(str(place)) for place in row[:3])
            after = (epoch, partition, offset)
            yield decode(bytes.fromhex(str(row[3])), DecisionMade), _request(row[4], row[5], row[6])


def _page(after: tuple[int, int, int], size: int) -> str:
    return f"""
        SELECT d.epoch, d.partition, d.offset, hex(d.value), r.value, r.schema, r.types
        FROM (
            SELECT epoch, partition, offset, source_offset, value FROM decisions
            WHERE effective = 1 AND notEmpty(rulings)
              AND (epoch, partition, offset) > ({after[0]}, {after[1]}, {after[2]})
            ORDER BY epoch, partition, offset LIMIT {size}
        ) AS d
        LEFT JOIN (
            SELECT epoch, partition, offset, toNullable(hex(value)) AS value, schema, {CONTENT_TYPES} AS types
            FROM requests WHERE undecodable IS NULL
        ) AS r ON r.epoch = d.epoch AND r.partition = d.partition AND r.offset = d.source_offset
        ORDER BY d.epoch, d.partition, d.offset
        """  # noqa: S608 - numbers of our own


def _request(value: object, schema: object, types: object) -> RequestSubmitted | None:
    if value is None:
        return None
    try:
        return stored_request(bytes.fromhex(str(value)), schema, types)
    except CodecError:
        return None
