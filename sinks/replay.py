"""The audit and a candidate bundle go in, what would have been decided otherwise comes out; the only place that
replays.

The policy log that the audit keeps is folded again, signatures and all, no further than each decision says: so each is
decided by the bundle, the directory and the stops that were in force at its event time, whichever changes led there.

Rows are rulings, not requests, because the most dangerous change flips no verdict: a field is read that was not read
before. Each stored `generate`, `shape` and `read` is decided twice with Cedar: under the bundle that decided it (a
mismatch means that the record or the engine changed, and the rest of the report is worth nothing) and under the
candidate, each time with the directory of that decision. Then each request is judged whole, twice too, for its
verdict, the fields that a newly allowed request would read, and its obligations. What was stopped stays stopped, and
what ended before a bundle was asked is counted apart. What lacks an input is counted as not replayable, never guessed.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.bundle import Bundle, digest_of, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import Directory, split_uid
from sluicegate.enforcer.history import PolicyHistory
from sluicegate.enforcer.judgement import Ask, Judgement
from sluicegate.enforcer.pairs import LoadedBundle, Loaders, Misfit, Pairs
from sluicegate.enforcer.schedule import FOREVER_MS, Scheduled
from sluicegate.enforcer.state import NotReady, PolicyLog
from sluicegate.enforcer.state import Rules as Then
from sluicegate.enforcer.trust import Domain
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import DecisionMade, Obligation, PolicyVersion, RequestSubmitted, Ruling
from sluicegate.schemas.ids import Digest
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.sinks.auditor import Auditor, literal
from sluicegate.sinks.decision_history import decisions, held_epochs
from sluicegate.sinks.policy_history import policy_log
from sluicegate.sinks.replay_report import FieldChange, ObligationChange, Report, VerdictChange

# Checks 1 to 3 say what no bundle changes; the third looks at what is stopped.
_STATE_CHECK: Final = 3
_ACCESS_CHECK: Final = 4
Progress = Callable[[int, int], None]
"""Called with the rulings done and the rulings there are."""


def _judging(bundle: Bundle, directory: Directory, before: Rules | None) -> Rules:
    """No memo: each row is decided by the engine, however often its like was."""
    decider = Decider(bundle, directory, remembered_max=0, before=before.decider if before else None)
    return Rules(bundle=bundle, directory=directory, decider=decider)


def replay(
    auditor: Auditor, candidate: bytes, *, domain: Domain, root_digest: Digest, progress: Progress | None = None
) -> Report:
    """Decides the whole history again under the bundle `candidate` (its canonical content).

    `domain` and `root_digest`: by what the policy log is believed, as `PolicyLog` takes them.

    Raises:
        InvalidBundle: the candidate does not validate.
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    run = _Replay(auditor, candidate)
    epochs = held_epochs(auditor)
    total = sum(each.rulings for each in epochs)
    for held in epochs:
        state = PolicyLog(domain=domain, root_digest=root_digest, loaders=Loaders(judging=_judging))
        run.begin(PolicyHistory(policy_log(auditor, held.epoch), state))
        for decision, request in decisions(auditor, held):
            run.take(decision, request)
            if progress is not None:
                progress(min(run.seen, total), total)
    return run.report()


@dataclass(slots=True)
class _Replay:
    """The state of one replay: the policy of the epoch as far as it was folded, and what was found so far."""

    auditor: Auditor
    candidate: bytes
    seen: int = 0
    decided: int = 0
    requests: int = 0
    mismatches: list[str] = field(default_factory=list)
    not_replayable: Counter[str] = field(default_factory=Counter)
    settled: Counter[str] = field(default_factory=Counter)
    newly_readable: list[FieldChange] = field(default_factory=list)
    no_longer_readable: list[FieldChange] = field(default_factory=list)
    newly_allowed: list[VerdictChange] = field(default_factory=list)
    newly_denied: list[VerdictChange] = field(default_factory=list)
    obligations: list[ObligationChange] = field(default_factory=list)
    prompts_changed: list[str] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)
    _bundle: Bundle = field(init=False)
    _history: PolicyHistory = field(init=False)
    _lost: str = ""
    _pairs: Pairs = field(init=False)

    def __post_init__(self) -> None:
        self._bundle = load_bundle(self.candidate)

    def begin(self, history: PolicyHistory) -> None:
        """Goes on with the decisions of another epoch, whose policy log is `history`."""
        self._history = history
        self._pairs = Pairs(Loaders(judging=_judging))
        self._lost = ""

    def take(self, decision: DecisionMade, request: RequestSubmitted | None) -> None:
        """Decides every ruling of one decision again, then judges its request whole."""
        self.seen += len(decision.rulings)
        settled = 0 < MEANINGS[decision.code].check < _ACCESS_CHECK
        if settled:
            self.settled[str(decision.code)] += 1
        policy = decision.policy
        if settled and (policy is None or MEANINGS[decision.code].check < _STATE_CHECK):
            return
        if policy is None:
            self.not_replayable["the decision names no policy version"] += max(1, len(decision.rulings))
            return
        then = self._then(decision.time_ms, policy)
        if isinstance(then, str):
            self.not_replayable[then] += max(1, len(decision.rulings))
            return
        if then.version != policy:
            self.mismatches.append(f"{decision.decision_id} policy in force")
            return
        self._history.state.forget(decision.time_ms)
        stop = then.stops.hitting(decision)
        if (stop is not None) != (decision.code is Code.STOPPED):
            self.mismatches.append(f"{decision.decision_id} {stop or 'not'} stopped")
            return
        if not settled:
            self._decide(decision, request, then)

    def _decide(self, decision: DecisionMade, request: RequestSubmitted | None, then: Then) -> None:
        now = self._now(decision.time_ms)
        if isinstance(now, str):
            self.not_replayable[now] += max(1, len(decision.rulings))
            return
        self.recorded.add(then.version.bundle_digest)
        # The candidate itself may be what a stop names.
        under = replace(decision, policy=replace(then.version, bundle_digest=self._bundle.digest))
        stopped = then.stops.hitting(under) is not None
        for ruling in decision.rulings:
            question = (ruling.action, ruling.principal, ruling.resource, ruling.context)
            if then.judging.decider.rule(*question) != ruling:
                self.mismatches.append(f"{decision.decision_id} {ruling.action} {ruling.resource}")
            after = now.decider.rule(*question)
            self._compare(decision, request, ruling, replace(after, allowed=False) if stopped else after)
            self.decided += 1
        self.requests += 1
        self._judge(decision, request, then.judging, None if stopped else now)

    def _compare(self, decision: DecisionMade, request: RequestSubmitted | None, before: Ruling, after: Ruling) -> None:
        if before.action != "read" or before.allowed == after.allowed:
            return
        change = self._field_change(decision, request, after if after.allowed else before)
        (self.newly_readable if after.allowed else self.no_longer_readable).append(change)

    def _judge(self, decision: DecisionMade, request: RequestSubmitted | None, then: Rules, now: Rules | None) -> None:
        """`now`: None where a stop would hold."""
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
        judgement = Judgement(code=Code.STOPPED) if now is None else judge(now, ask)
        allowed_before, allowed_after = decision.code is Code.OK, judgement.code is Code.OK
        if allowed_before != allowed_after:
            change = VerdictChange(
                request=decision.request_id or decision.decision_id,
                principal=decision.identity.principal,
                model=decision.model or "",
                before=str(decision.code),
                after=str(judgement.code),
                policies=() if now is None else judgement.determining or decision.determining,
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

    def _then(self, time_ms: int, policy: PolicyVersion) -> Then | str:
        """What was in force, or why that cannot be told."""
        if self._lost:
            return self._lost
        try:
            found = self._history.at(time_ms, position=policy.position)
        except ContinuityError as error:
            self._lost = str(error)
            return self._lost
        return (
            f"the policy log does not say what was in force: {found.reason}" if isinstance(found, NotReady) else found
        )

    def _now(self, time_ms: int) -> Rules | str:
        """The candidate over the directory in force."""
        directory = self._history.state.directory_at(time_ms)
        if directory is None:
            return "no directory was in force"
        candidate = Scheduled(
            value=LoadedBundle(digest=self._bundle.digest, bundle=self._bundle),
            version=0,
            effective_at_ms=0,
            from_ms=0,
            expires_ms=FOREVER_MS,
            position=-1,
        )
        found = self._pairs.of(candidate, directory)
        return "the directory that decided does not conform to the candidate" if isinstance(found, Misfit) else found

    def _content(self, digest: str) -> bytes | None:
        """A bundle as the audit holds it, if its digest is right."""
        found = self.auditor.sql(
            "SELECT hex(content) FROM policy WHERE effective = 1 AND kind = 'BUNDLE' "  # noqa: S608
            f"AND content_digest = {literal(digest)} LIMIT 1"
        ).rows
        content = bytes.fromhex(str(found[0][0])) if found else None
        return content if content is not None and digest_of(content) == digest else None

    def report(self) -> Report:
        """What was found, each change once."""
        return Report(
            candidate=self._bundle.digest,
            recorded=tuple(sorted(self.recorded)),
            requests=self.requests,
            decided=self.decided,
            mismatches=tuple(self.mismatches),
            not_replayable=dict(self.not_replayable),
            settled=dict(self.settled),
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
            before = json.loads(self._content(digest) or self.candidate)
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
