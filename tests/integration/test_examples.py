"""The examples in plain Kafka clients: each proves its requests and prints how each ended, whatever its language.

Most tests play the house by hand, so that what reaches an example is known to the record; one runs the lines of
`docs/producing.md` against the real house.
"""

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import company
import pytest
from examples_at_hand import LOCAL, NEEDED, PAGE, REPOSITORY, SOURCES, Example, prepare, shown
from fixtures_broker import need_kafka
from fixtures_stack import StackPlace, with_tiny_model

from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.identity import proof_audience, prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.keys import PrivateKey, key_id_of, new_p256, public_jwk, write_key
from sluicegate.proof import make_token
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity, ReleaseMade, RequestSubmitted, Source
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.reading import content_types, read_request
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.strict_json import loads_object
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

pytestmark = pytest.mark.timeout(600)  # Maven and npm fetch at the first run, Go and Java compile

LINES_END = 80
SUFFIXES = {".py", ".mjs", ".go", ".java"}
EMBEDDED = {"python", "node"}
"""The embedded broker hangs up on franz-go's question for API versions, and the Java client gets no offsets from it."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Maven resets colours that it did not set
ENV, SERVICE, PERSON, REPLIES = "test", "helpdesk-app", "eva.eng", "desk"
FOR_PERSON, FOR_ITSELF = f'User::"{PERSON}"', f'Service::"{SERVICE}"'
QUESTIONS = ("What is a derailleur?", "Wie zentriere ich ein Rad, in 3 Sätzen?")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", params=sorted(SOURCES))
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Each example in turn, ready to run."""
    return prepare(request.param, tmp_path_factory.mktemp(request.param))


class House:
    """Plays enforcer to delivery: checks each proof and answers where the request stands, every copy twice."""

    def __init__(self, broker: Broker, topology: Topology, key_file: Path, private: PrivateKey) -> None:
        self.broker, self.topology = broker, topology
        issuer = company.private_key("issuer")
        self.token = make_token(
            issuer, kid=key_id_of(issuer, "issuer"), issuer=company.ISSUER, audience="sluicegate",
            claims={"sub": PERSON, "act": {"sub": SERVICE}}, now_s=time.time_ns() // 1_000_000_000,
        )  # fmt: skip
        kid = "the-key-of-the-example"
        document = json.loads(company.directory_content())
        document["service_keys"] = [{"kid": kid, "service": SERVICE, "jwk": public_jwk(private)}]
        self.credentials = parse_credentials(loads_object(json.dumps(document).encode()))
        self.settings = {
            "SG_BOOTSTRAP": broker.config.bootstrap,
            "SG_TENANT": topology.tenant,
            "SG_ENV": ENV,
            "SG_SERVICE": SERVICE,
            "SG_REPLIES": REPLIES,
            "SG_KEY_FILE": str(key_file),
            "SG_KEY_ID": kid,
            "SG_MODEL": "smollm2",
            "SG_PURPOSE": "writing",
        }
        self.heard: list[tuple[Record, Identity | Refused]] = []

    async def open(self) -> None:
        await self.broker.create_topics(self.topology.with_replies([REPLIES]))
        # What the topics held before is nothing to whoever starts now.
        for partition in range(self.topology.partitions):
            await self._tell(self.topology.reply(REPLIES), partition, 0, "of another day", Code.OK)
            await self._tell(self.topology.refusals, partition, 0, None, Code.POISON)

    async def serve(self, partition: int) -> None:
        """Answers what comes to one partition, for ever."""
        audience = proof_audience(env=ENV, topic=self.topology.requests)
        async for batch in self.broker.tail(self.topology.requests, partition, start=0):
            for record in batch:
                found = prove(
                    record, audience=audience, partition_count=self.topology.partitions,
                    time_ms=time.time_ns() // 1_000_000, credentials=self.credentials, seen=SeenProofs(),
                )  # fmt: skip
                self.heard.append((record, found))
                await self._answer(record, found)

    async def _answer(self, record: Record, found: Identity | Refused) -> None:
        refusals = self.topology.refusals
        await self._tell(refusals, record.partition, record.offset + 1_000_000, None, Code.POISON)  # somebody else's
        if isinstance(found, Refused):
            for _ in range(2):
                await self._tell(refusals, record.partition, record.offset, None, found.code)
            return
        request = read_request(record)
        # As after an acknowledgement that was lost: what the client library sent again is refused, not the first.
        await self._tell(refusals, record.partition, record.offset, None, Code.PROOF_REPLAYED)
        for _ in range(2):
            text = f"heard: {request.messages[0].content}"
            await self._tell(self.topology.reply(REPLIES), record.partition, record.offset, text, Code.OK, request)

    async def _tell(
        self,
        topic: str,
        partition: int,
        offset: int,
        text: str | None,
        code: Code,
        request: RequestSubmitted | None = None,
    ) -> None:
        meaning = MEANINGS[code]
        release = ReleaseMade(
            release_id=f"r-{partition}-{offset}-{code}",
            source=Source(offset=offset, count=1, digest=b"\0" * 32, timestamp_ms=0),
            outcome=meaning.outcome,
            code=code,
            retryable=meaning.retryable,
            request_offset=offset,
            request_id=request.request_id if request else None,
            reason=None if text else meaning.text,
            text=text,
        )
        await self.broker.append(topic, partition, [Unsent(key=None, value=codec.encode(release))])


@contextlib.asynccontextmanager
async def house_at(bootstrap: str, folder: Path, private: PrivateKey) -> AsyncIterator[House]:
    """A house at a broker, open for a service whose private key is `private`."""
    key_file = folder / "keys" / "service.pem"
    write_key(key_file, private)
    topology = Topology(tenant=f"examples{next(NUMBERS)}", partitions=3)
    async with Broker(BrokerConfig(bootstrap=bootstrap, client_id="house", fetch_wait_ms=20)) as broker:
        house = House(broker, topology, key_file, private)
        await house.open()
        serving = [asyncio.create_task(house.serve(partition)) for partition in range(topology.partitions)]
        try:
            yield house
        finally:
            for task in serving:
                task.cancel()
            for result in await asyncio.gather(*serving, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), result


def lines(example: Example, questions: Sequence[str], **environment: str) -> list[str]:
    """What an example prints for the questions, in order of the alphabet."""
    done = example.run(example.asking(questions), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(line for line in COLOUR.sub("", done.stdout).splitlines() if line)


async def check(example: Example, house: House) -> None:
    """Three runs: for a person, for the service itself, and with a proof for somewhere else."""
    told = [
        await asyncio.to_thread(
            lines, example, QUESTIONS, **{**house.settings, "SG_SCHEMAS": example.schemas, **changes}
        )
        for changes in (
            {"SG_PRINCIPAL": FOR_PERSON, "SG_TOKEN": house.token},
            {"SG_PRINCIPAL": FOR_ITSELF},
            {"SG_PRINCIPAL": FOR_PERSON, "SG_TOKEN": house.token, "SG_ENV": "elsewhere"},
        )
    ]
    answers = sorted(f"RELEASED OK heard: {question}" for question in QUESTIONS)
    refused = f"DENIED PROOF_AUDIENCE {MEANINGS[Code.PROOF_AUDIENCE].text}"
    assert told == [answers, answers, [refused] * len(QUESTIONS)]
    proved = [found for _, found in house.heard if isinstance(found, Identity)]
    whom = [(each.principal, each.actor) for each in proved]
    assert whom == [(FOR_PERSON, FOR_ITSELF)] * len(QUESTIONS) + [(FOR_ITSELF, FOR_ITSELF)] * len(QUESTIONS)
    assert len({each.proof_id for each in proved}) == len(proved)
    others = [found for _, found in house.heard if isinstance(found, Refused)]
    assert others == [Refused(code=Code.PROOF_AUDIENCE)] * len(QUESTIONS)
    forms = {content_types(record) for record, _ in house.heard}
    assert forms == {(b"application/json",) if example.language == "node" else ()}


async def test_an_example_proves_what_it_asks_and_tells_each_release_once(
    example: Example, apache_kafka: str, tmp_path: Path
) -> None:
    private = new_p256() if example.language == "node" else company.private_key(SERVICE)
    async with house_at(apache_kafka, tmp_path, private) as house:
        await check(example, house)


@pytest.mark.parametrize("example", sorted(EMBEDDED), indirect=True)
async def test_an_example_works_with_the_embedded_broker_where_its_client_does(
    example: Example, tansu: str, tmp_path: Path
) -> None:
    async with house_at(tansu, tmp_path, company.private_key(SERVICE)) as house:
        await check(example, house)


@pytest.fixture(scope="session")
def kafka_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlace]:
    """The real house, with a model that says anything at all, on Apache Kafka."""
    need_kafka()
    place = with_tiny_model(tmp_path_factory.mktemp("house"))
    try:
        place.up("--broker", "kafka")
        yield place
    finally:
        place.end()


def test_an_example_is_answered_and_denied_by_the_real_house(example: Example, kafka_stack: StackPlace) -> None:
    home = {"SLUICEGATE_HOME": str(kafka_stack.home.root)}
    here = replace(example, command=(*LOCAL, *example.command))

    def ended(**changes: str) -> str:
        done = here.run(here.command, **home, **changes)
        assert done.returncode == 0, done.stdout + done.stderr
        return COLOUR.sub("", done.stdout).lstrip()

    assert ended().startswith("RELEASED OK ")
    assert ended(SG_PURPOSE="ticket") == "DENIED DENIED this purpose is not assigned to you\n"
    if example.language == "python":  # the way of a refusal is the house's, whoever asks; a house at hand tries all
        assert ended(SG_ENV="elsewhere") == f"DENIED PROOF_AUDIENCE {MEANINGS[Code.PROOF_AUDIENCE].text}\n"


def test_every_language_is_shown_and_short() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(shown(page, LOCAL)) == len(SOURCES) == len(NEEDED)
    counts = {
        name: len((REPOSITORY / "examples" / path).read_text("utf-8").splitlines()) for name, path in SOURCES.items()
    }
    assert min(counts.values()) > 40, "the count finds no lines"
    assert {name: count for name, count in counts.items() if count >= LINES_END} == {}


def test_no_example_takes_anything_of_ours() -> None:
    ours = re.compile(r"^\s*(?:import|from|require)\b.*sluicegate", re.MULTILINE)
    assert ours.search("from sluicegate.schemas import codec\n")
    texts = {path: path.read_text("utf-8") for path in (REPOSITORY / "examples").rglob("*") if path.suffix in SUFFIXES}
    assert len(texts) > len(SOURCES)
    assert [str(path) for path, text in texts.items() if ours.search(text)] == []
