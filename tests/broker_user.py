"""One user of a broker, asking at the lowest level: the broker's own error code for each thing, nothing in between.

Our clients look at the list of topics first, and a topic that a user may not see is not in it; whether the broker would
have refused is then not known.
"""

from types import TracebackType
from typing import Any, Self

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from sluicegate.streams.fetch import BrokerConfig, unpack

OK = 0
UNKNOWN_TOPIC = 3
TOPIC_REFUSED, GROUP_REFUSED, CLUSTER_REFUSED, TRANSACTION_REFUSED = 29, 30, 31, 53
EARLIEST = -2


class BrokerUser:
    """`async with BrokerUser(config) as user`: each method returns Kafka's error code, 0 where it was done."""

    def __init__(self, config: BrokerConfig) -> None:
        self._client = AIOKafkaClient(**config.connection())

    async def __aenter__(self) -> Self:
        try:
            await self._client.bootstrap()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def _send(self, request: Any) -> Any:
        return await self._client.send(self._client.get_random_node(), request)

    async def write(self, topic: str, value: bytes = b"x", *, partition: int = 0) -> int:
        batch = DefaultRecordBatchBuilder(
            magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
            batch_size=4096,
        )  # fmt: skip
        batch.append(0, timestamp=1_700_000_000_000, key=None, value=value, headers=[])
        answer = await self._send(ProduceRequest(None, -1, 5000, [(topic, [(partition, bytes(batch.build()))])]))
        return int(answer.topics[0][1][0][1])

    async def read(self, topic: str, *, partition: int = 0, offset: int = 0) -> tuple[int, list[bytes | None]]:
        answer = await self._send(FetchRequest(10, 1, 1 << 20, 0, [(topic, [(partition, offset, 1 << 20)])]))
        _, code, _, *rest = answer.topics[0][1][0]
        records, _ = unpack(rest[-1] or b"", topic=topic, partition=partition, offset=offset)
        return int(code), [each.value for each in records]

    async def list_offsets(self, topic: str, *, partition: int = 0) -> int:
        answer = await self._send(OffsetRequest(-1, 0, [(topic, [(partition, EARLIEST)])]))
        return int(answer.topics[0][1][0][1])

    async def join(self, group: str) -> int:
        """Joins a group under a protocol that no stage speaks, so that nothing is taken from anybody."""
        while True:
            found = await self._send(FindCoordinatorRequest(group, 0))
            if found.error_code not in (14, 15):  # it is being loaded or made
                break
        if found.error_code:
            return int(found.error_code)
        answer = await self._send(JoinGroupRequest(group, 6000, 6000, "", None, "consumer", [("nobody's", b"")]))
        return int(answer.error_code)

    async def init_transactions(self, transactional_id: str) -> int:
        while True:
            found = await self._send(FindCoordinatorRequest(transactional_id, 1))
            if found.error_code not in (14, 15):
                break
        if found.error_code:
            return int(found.error_code)
        while True:
            answer = await self._send(InitProducerIdRequest(transactional_id, 60_000))
            if answer.error_code not in (14, 15, 16):
                return int(answer.error_code)

    async def visible(self) -> set[str]:
        return set((await self._client.fetch_all_metadata()).topics())
