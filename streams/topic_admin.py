"""Topics and rights of a broker go in as they are, and changed come out: the only place that creates topics, sets their
settings and grants or takes away rights. It never deletes a topic.

Apache Kafka speaks the requests below from 2.3 on; the embedded broker knows topics alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import SecurityDisabled, TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import CreateAclsRequest_v1, DeleteAclsRequest, DescribeAclsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.streams.connect import connecting
from sluicegate.streams.fetch import FORBIDDEN, BrokerConfig, translated
from sluicegate.streams.rights import Operation, Pattern, Permission, Resource, Right
from sluicegate.streams.topic_plan import (
    Action,
    CreateTopic,
    Found,
    FoundTopic,
    Grant,
    Revoke,
    SetConfigs,
    TopicSpec,
)

_SET: Final = 0


class _SetConfigsAnswer(Response):  # type: ignore[misc]
    """IncrementalAlterConfigs (KIP-339), which aiokafka lacks: its AlterConfigs resets every setting not named."""

    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _SetConfigsRequest_v0(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as aiokafka names them
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _SetConfigsAnswer
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("config_operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _SetConfigsRequest(Request[_SetConfigsRequest_v0]):  # type: ignore[misc]
    API_KEY: ClassVar[int] = 44

    def __init__(self, topic: str, configs: Mapping[str, str]) -> None:
        entries = [(name, _SET, value) for name, value in configs.items()]
        self._resources = [(int(ConfigResourceType.TOPIC), topic, entries)]

    def build(self, request_struct_class: type[_SetConfigsRequest_v0]) -> _SetConfigsRequest_v0:
        return request_struct_class(self._resources, False)


class _GrantRequest(Request[CreateAclsRequest_v1]):  # type: ignore[misc]
    """CreateAcls for many rights at once; aiokafka's own takes one, and each is an append of the controller."""

    API_KEY: ClassVar[int] = 30

    def __init__(self, rights: Sequence[Right]) -> None:
        self._entries = [_entry(right) for right in rights]

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class(self._entries)


class TopicAdmin:
    """One connection that looks after topics and rights: `async with TopicAdmin(config) as admin`."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._client: Any = None

    async def __aenter__(self) -> Self:
        client = AIOKafkaAdminClient(**self._config.connection())
        try:
            async with connecting(self._config.connection()):
                await client.start()
        except BaseException:
            await client.close()
            raise
        self._client = client
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def topics(self) -> dict[str, FoundTopic]:
        """Every topic that this user may see, without its settings.

        Raises:
            Unavailable: the broker does not answer.
        """
        with translated("list its topics"):
            listed = await self._client.describe_topics()
        return {
            each["topic"]: FoundTopic(
                partitions=len(each["partitions"]),
                replication=min((len(part["replicas"]) for part in each["partitions"]), default=0),
                configs={},
            )
            for each in listed
            if each["partitions"]
        }

    async def look(self, wanted: tuple[TopicSpec, ...], *, rights: bool, shape_alone: bool = False) -> Found:
        """What there is of the wanted topics with their settings, the names of all others, and all rights.

        `shape_alone`: the broker knows neither replicas nor settings, so they are taken to be as wanted.

        Raises:
            ConfigurationError: this user may not look.
            Unavailable: the broker does not answer.
        """
        topics = await self.topics()
        there = [spec for spec in wanted if spec.name in topics]
        configs = {spec.name: spec.configs for spec in there} if shape_alone else await self._configs(there)
        for spec in there:
            found = topics[spec.name]
            topics[spec.name] = FoundTopic(
                partitions=found.partitions,
                replication=spec.replication if shape_alone else found.replication,
                configs=configs[spec.name],
            )
        return Found(topics=topics, rights=await self._rights() if rights else frozenset())

    async def _configs(self, specs: Sequence[TopicSpec]) -> Mapping[str, Mapping[str, str]]:
        """What is in force of the settings that each spec names, by topic."""
        if not specs:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, each.name, dict.fromkeys(each.configs)) for each in specs]
        with translated("describe the settings of topics"):
            (answer,) = await self._client.describe_configs(resources)
        found: dict[str, dict[str, str]] = {}
        for code, _, _, name, entries in answer.resources:
            _must(code, f"describe the settings of `{name}`")
            found[name] = {setting: value for setting, value, *_ in entries if value is not None}
        return found

    async def _rights(self) -> frozenset[Right] | None:
        request = DescribeAclsRequest(int(Resource.ANY), None, int(Pattern.ANY), None, None, 1, int(Permission.ANY))
        with translated("describe rights"):
            answer = await self._client._send_request(request)
            if for_code(answer.error_code) is SecurityDisabled:
                return None
            _must(answer.error_code, "describe rights")
        return frozenset(
            Right(
                principal=principal,
                resource=Resource(resource),
                name=name,
                pattern=Pattern(pattern),
                operation=Operation(operation),
                permission=Permission(permission),
                host=host,
            )
            for resource, name, pattern, entries in answer.resources
            for principal, host, operation, permission in entries
        )

    async def do(self, action: Action) -> None:
        """Does one thing; done already is done.

        Raises:
            ConfigurationError: the broker refuses it.
            Unavailable: it does not answer.
        """
        await self.do_all((action,), lambda _: None)

    async def do_all(self, actions: Sequence[Action], done: Callable[[Action], None]) -> None:
        """Does one thing after the other, with one request for topics and for rights that follow each other, and tells
        `done` of each; what was done before a refusal, or beside it, stays.

        Raises:
            ConfigurationError: the broker refuses one.
            Unavailable: it does not answer.
        """
        for kind, group in itertools.groupby(actions, key=type):
            several = list(group)
            batches = [several] if kind in (CreateTopic, Grant) else [[each] for each in several]
            for batch in batches:
                refusals = await self._do(batch)
                for action, refusal in zip(batch, refusals, strict=True):
                    if refusal is None:
                        done(action)
                for refusal in refusals:
                    if refusal is not None:
                        raise refusal

    async def _do(self, batch: list[Action]) -> list[SluicegateError | None]:
        """Does what one request can; for each, why the broker refused it."""
        match batch:
            case [CreateTopic(), *_]:
                return await self._create([each.spec for each in batch if isinstance(each, CreateTopic)])
            case [Grant(), *_]:
                return await self._grant([each.right for each in batch if isinstance(each, Grant)])
            case [SetConfigs(topic=topic, configs=configs)]:
                doing = f"change the settings of `{topic}`"
                with translated(doing):
                    answer = await self._client._send_request(_SetConfigsRequest(topic, configs))
                return [_refusal(answer.responses[0][0], doing)]
            case [Revoke(right=right)]:
                with translated("take rights away"):
                    answer = await self._client._send_request(DeleteAclsRequest(*_entry(right)))
                ((code, _, matching),) = answer.filter_responses
                codes = [code, *(each[0] for each in matching)]
                return [_refusal(next((each for each in codes if each != 0), 0), "take rights away")]
            case _:
                raise ValueError("a request does one thing")

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Creates topics; one that exists stays as it is.

        Raises:
            ConfigurationError: the broker refuses one.
            Unavailable: it does not answer.
        """
        for refusal in await self._create(specs):
            if refusal is not None:
                raise refusal

    async def _create(self, specs: Sequence[TopicSpec]) -> list[SluicegateError | None]:
        topics = [
            NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=dict(spec.configs)) for spec in specs
        ]
        with translated("create topics"):
            answer = await self._client.create_topics(topics)
        codes = {name: code for name, code, *_ in answer.topic_errors}
        there = TopicAlreadyExistsError.errno
        return [
            None if codes[spec.name] == there else _refusal(codes[spec.name], f"create topic `{spec.name}`")
            for spec in specs
        ]

    async def _grant(self, rights: Sequence[Right]) -> list[SluicegateError | None]:
        with translated("grant rights"):
            answer = await self._client._send_request(_GrantRequest(rights))
        return [_refusal(code, "grant rights") for code, _ in answer.creation_responses]


def _refusal(code: int, doing: str) -> SluicegateError | None:
    """What an error code in an answer means to us; None where it is none."""
    if code == 0:
        return None
    error = for_code(code)
    if error in FORBIDDEN:
        return ConfigurationError(f"the broker forbids to {doing} ({error.__name__}); mend its rights")
    if getattr(error, "retriable", False):
        return Unavailable(f"the broker did not {doing} ({error.__name__})")
    return ConfigurationError(f"the broker refuses to {doing} ({error.__name__}); see its log")


def _must(code: int, doing: str) -> None:
    refusal = _refusal(code, doing)
    if refusal is not None:
        raise refusal


def _entry(right: Right) -> tuple[int, str, int, str, str, int, int]:
    return (
        int(right.resource),
        right.name,
        int(right.pattern),
        right.principal,
        right.host,
        int(right.operation),
        int(right.permission),
    )
