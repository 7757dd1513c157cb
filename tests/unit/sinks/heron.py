"""A short history of the example company, with real decisions: what the tests of the audit land and ask."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from policy_events import event, root_event

from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content, load_bundle
from sluicegate.enforcer.candidate import Shadow
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.judgement import Ask
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import source_digest
from sluicegate.enforcer.shadow import NotShadowed, shadow_decide
from sluicegate.enforcer.shadow_stage import outcome_event
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas.codec import decode, encode
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import (
    DecisionMade,
    Document,
    FieldText,
    GenerationFinished,
    Identity,
    Message,
    ModelRun,
    Outcome,
    Parameters,
    PolicyVersion,
    RedactionMade,
    ReleaseMade,
    RequestSubmitted,
    Role,
    Source,
    Verdict,
    Window,
)
from sluicegate.schemas.ids import decision_id, entity_uid, generation_id, release_id
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Record
from sluicegate.schemas.shadow_events import ShadowDecided, ShadowStatus
from sluicegate.sinks.rows import Landing, Table

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
EPOCH = 3
NOON = 1_760_000_400_000
TOPICS = {f"heron.{table}": table for table in Table}
TOKEN = b"eyJ0b2tlbiI6InNlY3JldCJ9"
HELPDESK = ("Service", "helpdesk-app")


def topic(table: Table) -> str:
    return f"heron.{table}"


def policy_files() -> dict[str, str]:
    folder = REPOSITORY / "policies"
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if belongs_to_bundle(name)}


def leaking(files: dict[str, str]) -> dict[str, str]:
    """The edit of the demo: the role is dropped from the policy that lets the people team read pay."""
    before = """permit (principal in Role::"people", action == Action::"read", resource in FieldClass::"pay")
when { context.purpose == Purpose::"people" };"""
    assert files["pay.cedar"].count(before) == 1
    after = 'permit (principal, action == Action::"read", resource in FieldClass::"pay");'
    return files | {"pay.cedar": files["pay.cedar"].replace(before, after)}


BUNDLE = bundle_content(policy_files())
# Keys and issuers are what an installation adds; without the lists it is no directory that can be published.
DIRECTORY = json.dumps(
    {
        **json.loads((REPOSITORY / "policies" / "directory.json").read_bytes()),
        "service_keys": [],
        "issuers": [],
        "replies": [],
    }
).encode()
ROOT_DIGEST = digest_of(root_event().metadata)


@dataclass
class History:
    """Landings by table, appended in order on partition 0."""

    landings: dict[Table, list[Landing]] = field(default_factory=lambda: {table: [] for table in Table})
    _rules: Rules | None = None

    def rules(self) -> Rules:
        """The company's policies and directory, loaded once."""
        if self._rules is None:
            bundle = load_bundle(BUNDLE)
            directory = load_directory(DIRECTORY, bundle)
            self._rules = Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))
        return self._rules

    def append(
        self, table: Table, value: bytes | None, *, void: str | None = None, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> Record:
        offset = len(self.landings[table])
        record = Record(
            topic=topic(table),
            partition=0,
            offset=offset,
            timestamp_ms=NOON + 1000 * offset,
            key=b"User::ana",
            value=value,
            headers=headers,
        )
        self.landings[table].append(Landing(record=record, effective=void is None, void_reason=void))
        return record

    def publish(self) -> None:
        self.append(Table.POLICY, encode(root_event()))
        self.append(Table.POLICY, encode(event(Kind.BUNDLE, 1, BUNDLE, effective_at_ms=0)))
        self.append(Table.POLICY, encode(event(Kind.DIRECTORY, 1, DIRECTORY, effective_at_ms=0)))

    def request(self, request: RequestSubmitted) -> Record:
        headers = (("sg-proof", b"proof"), ("sg-token", TOKEN))
        return self.append(Table.REQUESTS, encode(request), headers=headers)

    def decide(self, record: Record, decision: DecisionMade, *, void: str | None = None) -> Record:
        made = replace(
            decision,
            decision_id=decision_id(epoch=EPOCH, partition=0, offset=record.offset),
            source=Source(
                offset=record.offset,
                count=1,
                digest=source_digest(record.key, record.value),
                timestamp_ms=record.timestamp_ms,
            ),
        )
        return self.append(Table.DECISIONS, encode(made), void=void)

    def generate(
        self, decided: Record, *, outcome: Outcome, code: Code, decision: str | None, text: str | None = None
    ) -> Record:
        run = None
        if text is not None:
            run = ModelRun(
                provider="CPUExecutionProvider", graph_digest="sha256:g", tokenizer_digest="sha256:t", seed=7,
                prompt_tokens=40, output_tokens=9, finish="stop",
            )  # fmt: skip
        offset = len(self.landings[Table.GENERATIONS])
        return self.append(
            Table.GENERATIONS,
            encode(
                GenerationFinished(
                    generation_id=generation_id(epoch=EPOCH, partition=0, offset=decided.offset),
                    source=Source(
                        offset=decided.offset, count=1, digest=source_digest(decided.key, decided.value),
                        timestamp_ms=decided.timestamp_ms,
                    ),
                    window=Window(first=offset, size=4),
                    outcome=outcome, code=code, decision_id=decision, text=text, run=run,
                )
            ),
        )  # fmt: skip

    def release(self, generated: Record, release: ReleaseMade) -> Record:
        made = replace(
            release,
            release_id=release_id(epoch=EPOCH, partition=0, offset=generated.offset),
            source=Source(
                offset=generated.offset, count=1, digest=source_digest(generated.key, generated.value),
                timestamp_ms=generated.timestamp_ms,
            ),
        )  # fmt: skip
        return self.append(Table.RELEASES, encode(made))


EMPTY_SOURCE = Source(offset=0, count=1, digest=b"", timestamp_ms=0)


@dataclass(frozen=True, kw_only=True)
class Beat:
    """One request, what the model says and what is released; the decision is made for real."""

    number: int
    who: str
    purpose: str
    asks: str
    dataset: str
    fields: tuple[tuple[str, str], ...]
    said: str = ""
    released: str = ""
    redactions: tuple[RedactionMade, ...] = ()
    unsupported: int = 0
    tokens: int = 20


PAY = (("job", "Priya Shah is the workshop lead. She earns "), ("salary", "41,500 pounds"), ("job", " a year."))
BEATS = (
    Beat(number=1, who="ana.support", purpose="ticket", asks="Summarize this ticket.", dataset="tickets",
         fields=(("text", "The rear brake squeals."),), said="A rear brake squeals.", released="A rear brake squeals."),
    Beat(number=5, who="pia.people", purpose="people", asks="How much does Priya Shah earn?",
         dataset="people",
         fields=PAY, said="Priya Shah earns 41,500 pounds, 1,200 more.",
         released="Priya Shah earns 41,500 pounds, [unsupported] more.",
         unsupported=1,
         redactions=(RedactionMade(redaction_class="UNSUPPORTED", start=32, end=37, rule_id="numbers",
                                   operator="label"),)),
    Beat(number=6, who="ian.intern", purpose="people", asks="How much does Priya Shah earn?",
         dataset="people",
         fields=PAY, said="Priya Shah earns [withheld] a year.", released="Priya Shah earns [withheld] a year.",
         tokens=200),
    Beat(number=7, who="ana.support", purpose="people", asks="How much does Priya Shah earn?",
         dataset="people",
         fields=PAY),
    Beat(number=9, who="ian.intern", purpose="roadmap", asks="What is the new cargo bike called?", dataset="roadmap",
         fields=(("text", "The new cargo bike is called Bluefin."),), said="It is called Project 12.",
         released="It is called Project 12."),
    Beat(number=11, who="finn.finance", purpose="invoice", asks="To which account must it be paid?", dataset="invoices",
         fields=(("iban", "GB29NWBK60161331926819"),), said="To GB29NWBK60161331926819.", released="To [IBAN ...6819].",
         redactions=(RedactionMade(redaction_class="IBAN", start=3, end=25, rule_id="iban", operator="last4"),)),
)  # fmt: skip


def tell(history: History, beat: Beat) -> None:
    """Appends the four events of one request."""
    who = ("User", beat.who)
    request = RequestSubmitted(
        request_id=f"demo-{beat.number:02}",
        model="smollm2",
        purpose=beat.purpose,
        messages=(Message(role=Role.USER, content=beat.asks),),
        documents=(
            Document(
                dataset=beat.dataset,
                document_id="x-1",
                fields=tuple(FieldText(name=name, text=text) for name, text in beat.fields),
            ),
        ),
        parameters=Parameters(max_tokens=beat.tokens),
    )
    record = history.request(request)
    rules = history.rules()
    found = judge(
        rules,
        Ask(
            principal=who,
            actor=HELPDESK,
            request=request,
            time_ms=record.timestamp_ms,
            default_seed=int.from_bytes(source_digest(record.key, record.value)[:7], "big"),
        ),
    )
    allowed = found.code is Code.OK
    decision = DecisionMade(
        decision_id="", source=EMPTY_SOURCE, time_ms=record.timestamp_ms,
        verdict=Verdict.ALLOW if allowed else Verdict.DENY, code=found.code, check=MEANINGS[found.code].check,
        reason=found.reason, request_id=request.request_id,
        identity=Identity(principal=entity_uid(*who), actor=entity_uid(*HELPDESK), proof_issuer="helpdesk-app",
                          proof_id=f"jti-{beat.number}", proof_issued_at_s=NOON // 1000, proof_key_id="k1"),
        model="smollm2", purpose=beat.purpose,
        policy=PolicyVersion(position=2, root_version=1, bundle_version=1, bundle_digest=rules.bundle.digest,
                             directory_version=1, directory_digest=rules.directory.digest),
        determining=found.determining, rulings=found.rulings, obligations=found.obligations, prompt=found.prompt,
        granted=found.granted, clamps=found.clamps, admitted=found.admitted, withheld=found.withheld,
        aliases=found.aliases, materials=found.materials, prompt_redactions=found.prompt_redactions,
        prompt_tokens_max=found.prompt_tokens_max,
    )  # fmt: skip
    decided = history.decide(record, decision)
    name = decision_id(epoch=EPOCH, partition=0, offset=record.offset)
    outcome = Outcome.ANSWERED if allowed else Outcome.DENIED
    generated = history.generate(
        decided, outcome=outcome, code=decision.code, decision=name, text=beat.said if allowed else None
    )
    history.release(
        generated,
        ReleaseMade(
            release_id="", source=EMPTY_SOURCE, outcome=MEANINGS[decision.code].outcome, code=decision.code,
            retryable=MEANINGS[decision.code].retryable, retry_after_ms=MEANINGS[decision.code].retry_after_ms,
            request_offset=record.offset, request_id=request.request_id, decision_id=name, principal=entity_uid(*who),
            actor=entity_uid(*HELPDESK), reason=decision.reason, text=beat.released if allowed else None,
            finish="stop" if allowed else None, withheld=decision.withheld, redactions=beat.redactions,
            unsupported=beat.unsupported, clamps=decision.clamps, rules_digest="sha256:r",
        ),
    )  # fmt: skip


def poison(history: History) -> None:
    """A truncated request: refused, and passed through to a release."""
    record = history.append(Table.REQUESTS, b"\xc3\x01\xff\x00torn", headers=(("sg-proof", b"proof"),))
    decided = history.decide(
        record,
        DecisionMade(
            decision_id="", source=EMPTY_SOURCE, time_ms=record.timestamp_ms, verdict=Verdict.DENY, code=Code.POISON,
            check=1,
            reason=MEANINGS[Code.POISON].text,
        ),
    )  # fmt: skip
    name = decision_id(epoch=EPOCH, partition=0, offset=record.offset)
    generated = history.generate(decided, outcome=Outcome.DENIED, code=Code.POISON, decision=name)
    history.release(
        generated,
        ReleaseMade(
            release_id="", source=EMPTY_SOURCE, outcome=ReleaseOutcome.REFUSED, code=Code.POISON, retryable=False,
            request_offset=record.offset, decision_id=name,
        ),
    )  # fmt: skip


def forged_grant(history: History) -> None:
    """Somebody writes an allow straight to the decisions: it is void, the runner refuses it, no model runs."""
    genuine = history.landings[Table.REQUESTS][0].record
    allow = DecisionMade(
        decision_id="",
        source=EMPTY_SOURCE,
        time_ms=NOON,
        verdict=Verdict.ALLOW,
        code=Code.OK,
        check=0,
        request_id="forged",
    )
    forged = history.decide(genuine, allow, void="it carries no seal")
    generated = history.generate(forged, outcome=Outcome.REFUSED, code=Code.FORGED, decision=None)
    history.release(
        generated,
        ReleaseMade(
            release_id="", source=EMPTY_SOURCE, outcome=ReleaseOutcome.REFUSED, code=Code.FORGED, retryable=False
        ),
    )


def shadowed(history: History) -> None:
    """The edit of the demo as a candidate beside every decision, and what else stands on the topic."""
    passed = Source(offset=0, count=1, digest=b"", timestamp_ms=0)
    history.append(Table.SHADOW, encode(ShadowDecided(source=passed, status=ShadowStatus.PASSED)))
    rules = history.rules()
    bundle = load_bundle(bundle_content(leaking(policy_files())))
    directory = load_directory(DIRECTORY, bundle)
    judging = Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))
    shadow = Shadow(judging=judging, version=4, digest=bundle.digest)
    for landing in history.landings[Table.DECISIONS][1:]:
        decision = decode(landing.record.value, DecisionMade)
        if landing.effective:
            request = history.landings[Table.REQUESTS][decision.source.offset].record
            found = shadow_decide(request, decision, shadow, schema_ids={})
            history.append(Table.SHADOW, encode(outcome_event(source_of(landing.record), decision, found)))
    first = history.landings[Table.DECISIONS][0].record
    failed = NotShadowed(decision_id="d3-0-0", reason="candidate 3 is not valid: `x`", failed=True)
    made = outcome_event(source_of(first), decode(first.value, DecisionMade), failed)
    history.append(Table.SHADOW, encode(made))
    history.append(Table.SHADOW, encode(made), void="no seal")
    assert rules.bundle.digest != bundle.digest


def company() -> History:
    history = History()
    history.publish()
    for beat in BEATS:
        tell(history, beat)
    poison(history)
    forged_grant(history)
    shadowed(history)
    return history
