"""The logs of a run go in, what each request got comes out: counted from seals alone, with no help of the stages."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fault.traffic import MARK, SERVICE, Asked, Switch
from fixtures_stack import verifier_of, whole

from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.history import decode_policy_event
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective, verify_copy
from sluicegate.enforcer.state import NotReady, PolicyLog, Rules
from sluicegate.home import Home
from sluicegate.installation import Installation, reply_name_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import DecisionMade, GenerationFinished, ReleaseMade, Verdict
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, REDACTOR, RUNNER, Topology

Logs = dict[tuple[str, int], list[Record]]
EVENTS = {ENFORCER: DecisionMade, RUNNER: GenerationFinished, REDACTOR: ReleaseMade}


async def read_all(broker: Broker, settings: Settings) -> Logs:
    """Every record of every topic."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    topics = topology.with_replies([reply_name_of(SERVICE)])
    return {(t, p): await whole(broker, t, p) for t, count in topics.items() for p in range(count)}


@dataclass(kw_only=True)
class Tally:
    """What a run came to. `problems` names everything that must not be."""

    requests: int = 0
    decisions: int = 0
    generations: int = 0
    releases: int = 0
    copies: int = 0
    copies_again: int = 0
    void: int = 0
    rogue_found: int = 0
    redone: int = 0
    model_runs: int = 0
    allowed: int = 0
    released: int = 0
    decided_again: int = 0
    before_switch: int = 0
    after_switch: int = 0
    problems: list[str] = field(default_factory=list)

    def must(self, claim: bool, problem: str) -> None:
        if not claim:
            self.problems.append(problem)


class Counting:
    """Counts one run from its logs alone, so that it can be tried on logs that were tampered with."""

    def __init__(
        self, settings: Settings, logs: Logs, *, rogue: Mapping[str, set[int]], doubtful: set[int], asked: Asked,
        switch: Switch | None,
    ) -> None:  # fmt: skip
        self.settings, self.logs, self.rogue, self.doubtful = settings, logs, rogue, doubtful
        self.asked, self.switch = asked, switch
        self.topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        self.tally = Tally()
        self.released: Counter[str] = Counter()
        self._policies: dict[int, PolicyLog] = {}

    def count(self) -> Tally:
        """Everything; the order of the parts does not matter."""
        partitions = range(self.settings.partitions)
        effective = {stage: [self.effective(stage, partition) for partition in partitions] for stage in EVENTS}
        for partition in partitions:
            self.one_to_one(partition, {stage: found[partition] for stage, found in effective.items()})
            self.decide_again(partition, effective[ENFORCER][partition])
            self.copies(partition, effective[REDACTOR][partition])
        self.forgeries()
        self.genuine([each for found in effective[ENFORCER] for each in found])
        return self.tally

    def effective(self, stage: str, partition: int) -> list[Effective]:
        sealed = SealedLog(verifier_of(self.settings, stage, partition), in_order=stage != RUNNER)
        topic = self.topology.place(stage, env="", epoch=1, partition=0).topic
        found: list[Effective] = []
        for record in self.logs[topic, partition]:
            verdict = sealed.observe(record)
            if isinstance(verdict, Effective):
                self.tally.must(record.header(MARK) is None, f"a rogue's record counts in {topic}/{partition}")
                found.append(verdict)
            else:
                self.tally.void += 1
                self.tally.redone += record.header(MARK) is None
        return found

    def one_to_one(self, partition: int, effective: Mapping[str, list[Effective]]) -> None:
        """Each offset of each input has exactly one effective output, and no output says more than its input."""
        tally = self.tally
        decisions = {each.record.offset: codec.decode(each.record.value, DecisionMade) for each in effective[ENFORCER]}
        allows = {offset for offset, each in decisions.items() if each.verdict is Verdict.ALLOW}
        for stage, event in EVENTS.items():
            answers: Counter[int] = Counter()
            for each in effective[stage]:
                source = codec.decode(each.record.value, event).source
                answers.update(range(source.offset, source.offset + source.count))
            inputs = {record.offset for record in self.logs[self.topology.source(stage), partition]}
            missing, doubled = inputs - set(answers), [at for at, count in answers.items() if count > 1]
            tally.must(
                not missing, f"{stage}/{partition}: {len(missing)} inputs without an output: {sorted(missing)[:5]}"
            )
            tally.must(
                not doubled, f"{stage}/{partition}: {len(doubled)} inputs with two outputs: {sorted(doubled)[:5]}"
            )
            tally.must(set(answers) <= inputs, f"{stage}/{partition}: outputs for what is not there")
        tally.requests += len(self.logs[self.topology.requests, partition])
        tally.decisions += len(decisions)
        for each in effective[RUNNER]:
            made = codec.decode(each.record.value, GenerationFinished)
            tally.generations += made.source.offset in decisions
            if made.run is not None:
                tally.model_runs += 1
                tally.must(
                    made.source.offset in allows, f"a model call without an allow: {partition}/{made.source.offset}"
                )
        terminal: Counter[int] = Counter()
        for each in effective[REDACTOR]:
            self.one_release(codec.decode(each.record.value, ReleaseMade), terminal, decisions)
        wanted = Counter({record.offset: 1 for record in self.logs[self.topology.requests, partition]})
        tally.must(terminal == wanted, f"{partition}: terminal releases differ from the requests: {terminal - wanted} "
                   f"{wanted - terminal}")  # fmt: skip
        tally.releases += terminal.total()
        tally.allowed += len(allows)

    def one_release(
        self, made: ReleaseMade, terminal: Counter[int], decisions: Mapping[int, DecisionMade]
    ) -> None:  # fmt: skip
        if made.request_offset is None:
            return
        terminal[made.request_offset] += 1
        if made.text is not None:
            allow = [
                each
                for each in decisions.values()
                if each.source.offset == made.request_offset and each.verdict is Verdict.ALLOW
            ]
            self.tally.must(len(allow) == 1, f"a text without an allow: request {made.request_offset}")
            if made.outcome is ReleaseOutcome.RELEASED and made.request_id is not None:
                self.released[made.request_id] += 1
                self.tally.released += 1

    def decide_again(self, partition: int, effective: list[Effective]) -> None:
        """Every decision from its own inputs, to the same bytes, under the policy it names; none under an older one."""
        settings = self.settings
        requests = {record.offset: record for record in self.logs[self.topology.requests, partition]}
        position = -1
        gate = Gate(
            GateConfig(
                epoch=settings.epoch, partition=partition,
                audience=proof_audience(env=settings.env, topic=self.topology.requests),
                partition_count=settings.partitions, request_bytes_max=settings.request_bytes_max,
                stale_after_ms=int(settings.stale_after_s * 1000), slice_bytes_max=settings.slice_bytes_max,
            ),
            lambda time_ms: self.rules(position, time_ms),
        )  # fmt: skip
        time_ms = 0
        for each in effective:
            decision = codec.decode(each.record.value, DecisionMade)
            self.version_in_force(decision)
            if decision.policy is not None:
                position = decision.policy.position
            record = requests.get(decision.source.offset)
            if record is not None and decision.source.count == 1:
                again = gate.decide([record], frontier=record.offset, time_ms=time_ms, clock_ms=None).outputs[-1]
                self.tally.must(again.value == each.record.value, f"decided otherwise: {partition}/{record.offset}")
                self.tally.decided_again += 1
            gate.fold(each)
            time_ms = decision.time_ms

    def version_in_force(self, decision: DecisionMade) -> None:
        switch = self.switch
        if switch is None or decision.policy is None:
            return
        new = decision.time_ms >= switch.effective_at_ms
        self.tally.after_switch += new
        self.tally.before_switch += not new
        right = (decision.policy.bundle_version >= switch.version) == new
        self.tally.must(right, f"decided under another bundle than T says: {decision.decision_id}")

    def rules(self, position: int, time_ms: int) -> Rules | NotReady:
        """The policy state of somebody who had read the policy log up to `position`."""
        found = self._policies.get(position)
        if found is None:
            installation = Installation(self.settings, Home(root=self.settings.home))
            found = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
            for record in self.logs[self.topology.policy, 0]:
                if record.offset <= position:
                    try:
                        found.fold(record.offset, decode_policy_event(record), record.timestamp_ms)
                    except CodecError:
                        found.skip(record.offset)
            self._policies[position] = found
        return found.at(time_ms)

    def copies(self, partition: int, effective: list[Effective]) -> None:
        """Every effective release stands, byte for byte, on the topic it belongs to; repeats are counted."""
        reply, refusals = self.topology.reply(reply_name_of(SERVICE)), self.topology.refusals
        check = verifier_of(self.settings, REDACTOR, partition)
        there: Counter[tuple[str, int]] = Counter()
        for topic in (reply, refusals):
            for record in self.logs[topic, partition]:
                if record.header(MARK) is None:
                    verdict = verify_copy(check, record)
                    self.tally.must(isinstance(verdict, Effective), f"a copy without effect in {topic}/{partition}")
                    there[topic, verdict.record.offset] += 1
        made = {each.record.offset: codec.decode(each.record.value, ReleaseMade) for each in effective}
        wanted = {(reply if each.actor else refusals, offset) for offset, each in made.items()}
        missing, more = len(wanted - set(there)), len(set(there) - wanted)
        self.tally.must(missing + more == 0, f"{partition}: {missing} copies missing, {more} of no release")
        self.tally.copies += len(there)
        self.tally.copies_again += there.total() - len(there)

    def forgeries(self) -> None:
        """The rogue's records are found, each of them, where it wrote them."""
        for topic, numbers in self.rogue.items():
            found = {
                int(mark)
                for (name, _), records in self.logs.items()
                for record in records
                if name == topic and (mark := record.header(MARK)) is not None
            }
            self.tally.rogue_found += len(numbers & found)
            self.tally.must(numbers <= found, f"{len(numbers - found)} planted records of {topic} are not counted")
            self.tally.must(found <= numbers | self.doubtful, f"{topic} holds marked records that nobody planted")

    def genuine(self, effective: list[Effective]) -> None:
        """Who may ask is answered, once; who may not, never; who was switched off, by the event time."""
        decided: dict[str, list[DecisionMade]] = {}
        for each in effective:
            decision = codec.decode(each.record.value, DecisionMade)
            if decision.request_id is not None and decision.identity is not None:
                decided.setdefault(decision.request_id, []).append(decision)
        for request_id in self.asked.allowed:
            self.tally.must(self.released[request_id] == 1, f"{request_id}: {self.released[request_id]} answers")
        for request_id in self.asked.forbidden:
            self.tally.must(self.released[request_id] == 0, f"{request_id} was answered")
        for request_id in self.asked.switched:
            first = next((each for each in decided.get(request_id, ()) if each.code is not Code.DUPLICATE_OF), None)
            self.tally.must(first is not None, f"{request_id} was not decided")
            if first is None:
                continue
            refused = self.switch is not None and first.time_ms >= self.switch.effective_at_ms
            self.tally.must(self.released[request_id] == (0 if refused else 1), f"{request_id}: not as the bundle says")
            self.tally.must(
                not refused or "switched" in first.determining, f"{request_id} is refused for another reason"
            )
