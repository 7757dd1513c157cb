"""Requests in, terminal releases out, for the command line, the demo and tests: the development client of one stack.

It proves every request as any producer must (DESIGN 3) and believes only effective releases. It holds the services'
private keys of this installation's key folder, so it is a tool for the machine that the stack runs on.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sluicegate.broker_access import broker_security
from sluicegate.clock import StackClock
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE, Installation
from sluicegate.keys import key_id_of
from sluicegate.proof import make_proof, make_token, proof_headers
from sluicegate.registry import ids_at_start
from sluicegate.schemas import codec
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.schemas.ids import EventKey, entity_uid
from sluicegate.schemas.records import Headers, Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker, BrokerConfig, Tail
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import REDACTOR, Topology

START_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A proved request, ready to be appended; whoever reads the topic holds the same."""

    key: bytes
    value: bytes
    headers: Headers


class Client:
    """`async with Client(settings) as client`; `settings` name a running broker and its epoch."""

    def __init__(self, settings: Settings) -> None:
        home = Home(root=settings.home)
        self._settings = settings
        self._installation = Installation(settings, home)
        self._clock = StackClock(home.root if settings.event_time == "enforcer" else None)
        self.topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        self._broker = Broker(
            BrokerConfig(
                bootstrap=settings.bootstrap,
                client_id="sluicegate-client",
                request_timeout_s=settings.request_timeout_s,
                fetch_wait_ms=settings.fetch_wait,
                batch_bytes_max=16 * 1024 * 1024,
                security=broker_security(settings),
            )
        )
        self._policy = PolicyTail(
            self._broker,
            topic=self.topology.policy,
            state=PolicyLog(domain=self._installation.domain, root_digest=self._installation.root_digest()),
        )
        self._releases: dict[tuple[int, int], asyncio.Future[ReleaseMade]] = {}
        self._tails: list[Tail] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._schema_ids: Mapping[int, str] = {}

    async def __aenter__(self) -> Self:
        self._schema_ids = await ids_at_start(self._settings)
        await self._broker.__aenter__()
        await self._policy.start(timeout_s=START_TIMEOUT_S)
        for partition in range(self.topology.partitions):
            start = await self._broker.end_offset(self.topology.releases, partition)
            tail = self._broker.tail(self.topology.releases, partition, start=start)
            self._tails.append(tail)
            self._tasks.append(asyncio.create_task(self._follow(tail, partition, start)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for tail in self._tails:
            await tail.aclose()
        await self._policy.stop()
        await self._broker.__aexit__(kind, error, trace)

    def prepare(self, request: RequestSubmitted, *, service: str, person: str | None) -> Prepared:
        """The request as `service` sends it, for `person` or for itself, with proof and token."""
        now_s = self._clock.now_ms() // 1000
        value = codec.encode(request)
        key = (entity_uid("User", person) if person else entity_uid("Service", service)).encode()
        token = self._token(service, person, now_s) if person else None
        private = self._installation.keys.service(service)
        proof = make_proof(
            private,
            kid=key_id_of(private, "service"),
            service=service,
            audience=proof_audience(env=self._settings.env, topic=self.topology.requests),
            key=key,
            value=value,
            now_s=now_s,
            jti=secrets.token_urlsafe(16),
            token=token,
        )
        return Prepared(key=key, value=value, headers=proof_headers(proof, token))

    def _token(self, service: str, person: str, now_s: int) -> str:
        issuer = self._installation.keys.issuer(ISSUER_KEY)
        return make_token(
            issuer,
            kid=key_id_of(issuer, "issuer"),
            issuer=ISSUER,
            audience=TOKEN_AUDIENCE,
            claims={"sub": person, "act": {"sub": service}},
            now_s=now_s,
        )

    async def submit(self, request: RequestSubmitted, *, service: str, person: str | None) -> EventKey:
        """Publishes a proved request on the partition of its principal and returns where it stands."""
        return await self.publish(self.prepare(request, service=service, person=person))

    async def publish(self, prepared: Prepared) -> EventKey:
        """Publishes a prepared request, or what an attacker made of one."""
        partition = partition_of(prepared.key, self.topology.partitions)
        unsent = Unsent(key=prepared.key, value=prepared.value, headers=prepared.headers)
        return await self.append(self.topology.requests, partition, [unsent])

    async def append(self, topic: str, partition: int, records: Sequence[Unsent]) -> EventKey:
        """Appends records as they are to any topic, as whoever can write there could; the place of the first.

        Raises:
            Unavailable: the broker did not acknowledge them.
        """
        offset = await self._broker.append(topic, partition, records, timestamp_ms=self._clock.now_ms())
        return EventKey(epoch=self._settings.epoch, topic=topic, partition=partition, offset=offset)

    async def release_of(self, key: EventKey, timeout_s: float) -> ReleaseMade:
        """The terminal release of the request at `key`, which this client must have been open for.

        Raises:
            Unavailable: none came in time.
        """
        waiter = self._waiter(key.partition, key.offset)
        try:
            return await asyncio.wait_for(asyncio.shield(waiter), timeout_s)
        except TimeoutError:
            raise Unavailable(f"no release for `{key}` within {timeout_s:g} s; look at `sluicegate status`") from None

    def _waiter(self, partition: int, offset: int) -> asyncio.Future[ReleaseMade]:
        loop = asyncio.get_running_loop()
        return self._releases.setdefault((partition, offset), loop.create_future())

    async def _follow(self, tail: Tail, partition: int, start: int) -> None:
        place = self.topology.place(REDACTOR, env=self._settings.env, epoch=self._settings.epoch, partition=partition)
        log = SealedLog(Verifier(place, lambda: self._policy.stage_keys(REDACTOR)), start=start, in_order=False)
        async for batch in tail:
            for record in batch:
                if isinstance(log.observe(record), Effective):
                    release = codec.decode(record.value, ReleaseMade, ids=self._schema_ids)
                    if release.request_offset is not None:
                        waiter = self._waiter(partition, release.request_offset)
                        if not waiter.done():
                            waiter.set_result(release)
