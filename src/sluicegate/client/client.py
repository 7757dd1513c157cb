"""One service's questions go in, one answer each comes out: `async with Client(config) as client`.

Order of effects of a call: take a slot; be known as waiting; send, until the broker acknowledges one of the sends (each
has a new proof, all have one request id and one body); take the release for an acknowledged place, or the one that a
`DUPLICATE_OF` there names. Whoever stops waiting leaves nothing behind here; the request itself goes on.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from sluicegate.client.answer import Answer, answer_of
from sluicegate.client.body import body_of, messages_of, principal_of
from sluicegate.client.calls import Calls, Submitted
from sluicegate.client.config import ClientConfig, wall_clock_ms
from sluicegate.client.copies import Copies, Counts
from sluicegate.client.errors import NotAnswered
from sluicegate.client.kafka_wire import KafkaWire
from sluicegate.client.look_back import LookBack
from sluicegate.client.signing import Prover, read_key
from sluicegate.client.waiting import Found, Next, Waiter, Waiting
from sluicegate.client.wire import Wire
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seen import REQUEST_WINDOW_MS
from sluicegate.schemas.errors import ConfigurationError, ContinuityError, SluicegateError, Unavailable
from sluicegate.schemas.events import Document, Message, Parameters, RequestSubmitted
from sluicegate.schemas.ids import EventKey
from sluicegate.schemas.records import Record

log = logging.getLogger(__name__)
PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 2.0
RECORDS_AT_ONCE: Final = 32
"""Verified before the loop may do something else."""
CLOCKS_APART_MS: Final = 3_600_000


class Client:
    """All that a service needs of the gate; used from one event loop. `wire` stands in for Kafka in tests."""

    def __init__(self, config: ClientConfig, *, wire: Wire | None = None) -> None:
        self.config = config
        self._topology = config.topology()
        self._replies = (self._topology.reply(config.reply_name), self._topology.refusals)
        self._prover = Prover(
            read_key(config.key),
            kid=config.kid,
            service=config.service,
            audience=proof_audience(env=config.env, topic=self._topology.requests),
            now_ms=config.now_ms,
        )
        self._copies = Copies(config)
        self._waiting = Waiting()
        self._calls = Calls(self._waiting, waiting_max=config.waiting_max, wait=config.when_full == "wait")
        self._wire: Wire = KafkaWire(config) if wire is None else wire
        self._look_back = LookBack(self._wire, self._replies, self._offer, self._waiting.looked_back)
        self._partitions = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: SluicegateError | None = None

    @property
    def counts(self) -> Counts:
        """What the reply topic and the refusals held so far."""
        return self._copies.counts

    @property
    def waiting(self) -> int:
        """How many requests wait for their release now."""
        return len(self._calls)

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            ConfigurationError: a topic is missing or forbidden, or has another number of partitions.
            Unavailable: the broker does not answer.
        """
        found = await self._wire.open(requests=self._topology.requests, replies=self._replies)
        if self.config.partitions not in (None, found):
            await self._wire.close()
            raise ConfigurationError(
                f"`{self._topology.requests}` has {found} partitions, not {self.config.partitions}"
            )
        self._partitions = found
        for work in (self._follow(), self._look_back.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._stopped)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._break(Unavailable("the client was closed; look for what is missing with `find`"))
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        await self._wire.close()

    async def ask(
        self,
        *,
        model: str,
        purpose: str,
        messages: Sequence[Message] | None = None,
        text: str | None = None,
        documents: Sequence[Document] = (),
        parameters: Parameters | None = None,
        person_token: str | None = None,
        principal: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        deadline_ms: int | None = None,
    ) -> Answer:
        """Asks and waits for the terminal release, whatever it is; `answer.require()` insists on an answer.

        `person_token`: the access token of the person asked for (None: the service asks in its own name); `principal`:
        that person's id where it is not the token's `sub`. `request_id`: unique in the service (None: a new one); a
        repeated request has the id and the body of the first, so its `deadline_ms` too. `deadline_ms`: milliseconds
        since 1970 after which no model call starts (None: `deadline_share` of the time that this call waits).

        Raises:
            NotAnswered: no release came within `timeout_s`; `find` looks for it later.
            TooManyWaiting: `waiting_max` requests wait already; nothing was sent.
            ConfigurationError: the broker refuses the request, or something about the topics or keys is wrong.
            ContinuityError: the reply topic was cut or recreated: open a new client.
            Unavailable: the client was closed.
            ValueError: both `messages` and `text`, or neither.
        """
        submitted = await self.submit(
            model=model,
            purpose=purpose,
            messages=messages,
            text=text,
            documents=documents,
            parameters=parameters,
            person_token=person_token,
            principal=principal,
            request_id=request_id,
            timeout_s=timeout_s,
            deadline_ms=deadline_ms,
        )
        return await self.wait(submitted)

    async def submit(
        self,
        *,
        model: str,
        purpose: str,
        messages: Sequence[Message] | None = None,
        text: str | None = None,
        documents: Sequence[Document] = (),
        parameters: Parameters | None = None,
        person_token: str | None = None,
        principal: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        deadline_ms: int | None = None,
    ) -> Submitted:
        """As `ask`, but returns once the broker acknowledged the request; `wait` then has the rest of `timeout_s`."""
        within_s = self.config.timeout_s if timeout_s is None else timeout_s
        if deadline_ms is None:
            deadline_ms = self.config.now_ms() + int(1000 * within_s * self.config.deadline_share)
        request = RequestSubmitted(
            request_id=request_id if request_id is not None else str(uuid.uuid4()),
            model=model,
            purpose=purpose,
            messages=messages_of(messages, text),
            documents=tuple(documents),
            parameters=parameters if parameters is not None else Parameters(),
            deadline_ms=deadline_ms,
        )
        key = principal_of(principal, person_token, service=self.config.service)
        body = body_of(request, key=key, token=person_token, wire_format=self.config.wire_format)
        partition = partition_of(body.key, self._open())
        limit = asyncio.get_running_loop().time() + within_s
        call = await self._calls.enter(request.request_id, partition, within_s=within_s, limit=limit, body=body)
        try:
            async with asyncio.timeout_at(limit):
                await self._send(call)
        except TimeoutError:
            self._calls.leave(call)
            raise NotAnswered(call.request_id, within_s=within_s, place=call.place) from None
        except BaseException:
            self._calls.leave(call)
            raise
        return call

    async def wait(self, submitted: Submitted) -> Answer:
        """The terminal release of a submitted request. Cancelled, it leaves nothing behind; call it once.

        Raises:
            NotAnswered: none came in the time that was given when it was submitted.
            ConfigurationError, ContinuityError, Unavailable: as `ask`.
        """
        try:
            found = await submitted._waiter.future
        finally:
            self._calls.leave(submitted)
        return self._answer(submitted, found)

    async def find(
        self,
        request_id: str,
        *,
        since: datetime | None = None,
        place: EventKey | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """The terminal release of a request that was sent before, by this client or one that died; waits for it too.

        Reads the reply topic back from `since` (an aware time; None: as far as replies are kept). `place`, where it is
        known, finds the refusal of a request that nobody was proved to have sent: it carries no request id.

        Raises:
            NotAnswered: no release within `timeout_s`: it comes later, or the request never reached the broker. To ask
                again with the same id and body is safe.
            TooManyWaiting, ConfigurationError, ContinuityError, Unavailable: as `ask`.
        """
        within_s = self.config.timeout_s if timeout_s is None else timeout_s
        partitions = range(self._open()) if place is None else (place.partition,)
        limit = asyncio.get_running_loop().time() + within_s
        call = await self._calls.enter(
            request_id, None if place is None else place.partition, within_s=within_s, limit=limit, place=place
        )
        since_ms = None if since is None else int(since.timestamp() * 1000)
        topics = self._replies if place is not None else self._replies[:1]
        self._look_back.want(call._waiter, topics=topics, partitions=partitions, since_ms=since_ms)
        return await self.wait(call)

    def _open(self) -> int:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))
        if not self._partitions:
            raise RuntimeError("the client is used outside of `async with`")
        return self._partitions

    async def _send(self, call: Submitted) -> None:
        """Sends until one send is acknowledged, or nobody waits any more."""
        waiter, body = call._waiter, call._body
        assert body is not None
        assert waiter.partition is not None
        pause_s = PAUSE_S
        while not waiter.future.done():
            offset: int | None = None
            following = Next.NOTHING
            self._waiting.sending(waiter.partition)
            try:
                record = await self._prover.prove(
                    key=body.key, value=body.value, token=body.token, headers=body.headers
                )
                offset = await self._wire.append(self._topology.requests, waiter.partition, record)
                call.place = self._place(waiter.partition, offset)
            except Unavailable as error:
                log.warning("a request is sent again", extra={"request_id": call.request_id, "why": str(error)})
            finally:
                following = self._waiting.sent(waiter, offset)
            if offset is not None:
                self._act(waiter, following)
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _act(self, waiter: Waiter, following: Next) -> None:
        call = self._calls.of(waiter)
        if call is None:
            return
        if following is Next.SEND_AGAIN:
            task = asyncio.create_task(self._send(call))
            call._sends.add(task)
            task.add_done_callback(lambda done: self._sent_again(call, done))
        elif following is Next.LOOK_BACK:
            partitions = range(self._partitions) if waiter.partition is None else (waiter.partition,)
            since_ms = wall_clock_ms() - REQUEST_WINDOW_MS - CLOCKS_APART_MS
            self._look_back.want(waiter, topics=self._replies[:1], partitions=partitions, since_ms=since_ms)

    def _sent_again(self, call: Submitted, done: "asyncio.Task[None]") -> None:
        call._sends.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            self._calls.fail(call, error if isinstance(error, Exception) else RuntimeError("a send was broken off"))

    async def _follow(self) -> None:
        while True:
            try:
                records = await self._wire.follow()
            except Unavailable as error:
                log.warning("the client waits for its broker", extra={"why": str(error)})
                await asyncio.sleep(PAUSE_S)
                continue
            for index, record in enumerate(records, start=1):
                self._offer(record)
                if index % RECORDS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _offer(self, record: Record, *, before: bool = False) -> None:
        """`before`: read back for somebody who asks for what came before."""
        release = self._copies.read(record, before=before)
        if release is None:
            return
        for waiter, following in self._waiting.take(record.partition, release):
            self._act(waiter, following)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, ConfigurationError | ContinuityError):
            self._break(error)
        else:
            log.error("the client's reader has stopped", exc_info=error)
            self._break(Unavailable("the client's reader has stopped on a bug; open a new client"))

    def _break(self, error: SluicegateError) -> None:
        """Everybody who waits is told, and everybody who comes."""
        if self._broken is None:
            self._broken = error
        self._calls.fail_all(lambda: type(error)(str(error)))

    def _place(self, partition: int, offset: int) -> EventKey:
        return EventKey(epoch=self.config.epoch, topic=self._topology.requests, partition=partition, offset=offset)

    def _answer(self, call: Submitted, found: Found) -> Answer:
        assert found.release.request_offset is not None
        return answer_of(
            found.release,
            request_id=call.request_id,
            place=self._place(found.partition, found.release.request_offset),
            repeats=found.repeats,
        )
