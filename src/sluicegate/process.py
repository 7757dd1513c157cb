"""A stage's name and the settings go in, what every stage process has comes out: its broker connection, the policy log
that it follows, its keys, and when to stop.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypedDict

from securesystemslib.signer import Signer as TufSigner  # type: ignore[attr-defined]

from sluicegate.broker_access import broker_config
from sluicegate.clock import StackClock
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import Signer, SigningKey, Verifier
from sluicegate.enforcer.state import PolicyLog
from sluicegate.enforcer.trust import TrustedRoot
from sluicegate.freshness_key import freshness_signer
from sluicegate.health import health_file, report_health
from sluicegate.home import Home
from sluicegate.installation import Installation, require_admitted, signer_with
from sluicegate.landing import Judge, judge_accepted, judge_policy, judge_sealed
from sluicegate.readiness import report_ready
from sluicegate.registry import ids_at_start
from sluicegate.schemas.errors import Unavailable
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION as POLICY_PARTITION
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import FRESHNESS, RUNNER, SEALED, Topology


class GroupArguments(TypedDict):
    """Where and as whom a worker loop reads."""

    topic: str
    partitions: int
    group: str
    stopping: asyncio.Event
    session_timeout_s: float


class Process:
    """What every stage process has: settings, home, topology, a broker connection, the policy log, and when to stop."""

    def __init__(
        self,
        stage: str,
        settings: Settings,
        broker: Broker,
        stopping: asyncio.Event,
        signing_key: SigningKey | None = None,
    ) -> None:
        self.stage = stage
        self._signing_key = signing_key
        self.settings = settings
        self.home = Home(root=settings.home)
        self.broker = broker
        self.stopping = stopping
        self.installation = Installation(settings, self.home)
        self.topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        embedded = settings.event_time == "enforcer"
        self._clock = StackClock(self.home.root if embedded else None)
        self.policy = PolicyTail(
            broker,
            topic=self.topology.policy,
            state=PolicyLog(domain=self.installation.domain, root_digest=self.installation.root_digest()),
            # Who promises that the log is whole needs to know only under which key.
            kinds=frozenset({Kind.ROOT}) if stage == FRESHNESS else frozenset(Kind),
        )
        self.schema_ids: Mapping[int, str] = {}
        """Which of our schemas the registry knows under which id, as it said when the process started."""
        self._reported = False
        self.clock_ms: Callable[[], int | None] = self._clock.now_ms if embedded else lambda: None

    async def policy_current(self) -> None:
        """Returns once all policy is folded that stands in its log now.

        Raises:
            Unavailable: the broker does not answer.
        """
        await self.policy.reach_end(timeout_s=self.settings.request_timeout_s)

    def now_ms(self) -> int:
        """The stack's clock, milliseconds."""
        return self._clock.now_ms()

    def ready(self, detail: str = "") -> None:
        """Tells whoever started the stage that it takes work; once."""
        if not self._reported:
            self._reported = True
            report_ready(self.settings.ready_fd, detail)

    async def well(self) -> bool:
        """Whether this process works: it took work, the policy log is followed, and the broker answers now."""
        if not (self._reported and self.policy.followed):
            return False
        try:
            await self.broker.end_offset(self.topology.policy, POLICY_PARTITION)
        except Unavailable:
            return False
        return True

    def signer(self, stage: str) -> Signer:
        """What the stage seals with: the key it was given, else its newest file, as long as the policy log admits it.

        Raises:
            ConfigurationError: there is no key, or none is admitted; the text says what to type.
        """
        if self._signing_key is not None:
            own: tuple[Signer, ...] = (signer_with(self._signing_key, stage),)
        else:
            own = self.installation.stage_signers(stage)
        return require_admitted(stage, own, self.policy.stage_keys(stage), now_ms=self.now_ms())

    def freshness_signer(self, root: TrustedRoot) -> TufSigner:
        """What freshness is signed with: the key the stage was given, else its newest file that the root names.

        Raises:
            ConfigurationError: the root does not name it.
        """
        return freshness_signer(self.installation.keys, self._signing_key, root)

    def group(self, stage: str) -> GroupArguments:
        """What a worker loop needs to join the stage's consumer group."""
        return {
            "topic": self.topology.source(stage),
            "partitions": self.settings.partitions,
            "group": self.topology.group(stage),
            "stopping": self.stopping,
            "session_timeout_s": self.settings.session_timeout_s,
        }

    def judge(self, topic: str, partition: int) -> Callable[[int], Judge]:
        """Tells effective records of a topic from void ones, for the audit."""
        if topic == self.topology.requests:
            return lambda _: judge_accepted
        if topic == self.topology.policy:
            digest = self.installation.root_digest()
            return lambda _: judge_policy(PolicyLog(domain=self.installation.domain, root_digest=digest))
        stage = next(name for name, sealed in SEALED.items() if self.topology.topic(sealed.topic) == topic)
        return lambda start: judge_sealed(self.verifier(stage, partition), start=start)

    def verifier(self, stage: str, partition: int) -> Verifier:
        """Verifies what `stage` writes on one partition, under the stage keys admitted now."""
        place = self.topology.place(stage, env=self.settings.env, epoch=self.settings.epoch, partition=partition)
        return Verifier(place, lambda: self.policy.stage_keys(stage))


@contextlib.asynccontextmanager
async def stage_process(stage: str, settings: Settings, signing_key: SigningKey | None) -> AsyncIterator[Process]:
    """The process of a stage, told to stop by SIGTERM or SIGINT.

    Raises:
        ConfigurationError, Unavailable: the broker or the registry is not reached, or there is no root of trust.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    # These two read and write nothing that comes in a registry's framing.
    schema_ids = {} if stage in (RUNNER, FRESHNESS) else await ids_at_start(settings)
    async with Broker(broker_config(settings, stage)) as broker:
        process = Process(stage, settings, broker, stopping, signing_key)
        process.schema_ids = schema_ids
        await process.policy.start(timeout_s=settings.ready_timeout_s)
        beats = asyncio.create_task(report_health(health_file(process.home.run, stage), well=process.well))
        try:
            yield process
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            await process.policy.stop()
