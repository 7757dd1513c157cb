"""A mix and a number go in, proved requests of the example company come out; the only place that makes the load.

`shell` is the requests of `memo` for a gate that decides nothing: what is left is the price of the worker around it.
`memo` puts few distinct questions to Cedar, so its memo answers nearly all of them. In `distinct` no two requests ask
for the same number of output tokens, which policies can read: Cedar decides `generate` and `shape` of each anew.
Texts and request ids differ from request to request in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE, Installation
from sluicegate.keys import key_id_of
from sluicegate.proof import make_proof, make_token, proof_headers
from sluicegate.schemas import codec
from sluicegate.schemas.events import Document, FieldText, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.records import Unsent

SHELL: Final = "shell"
MIXES: Final = ("memo", "distinct", SHELL)
REQUESTS_MAX: Final = 30_000
"""A request may ask for up to 32,768 output tokens, and each of the mix `distinct` asks for another number."""
NOON_MS: Final = 1_795_176_000_000
"""2026-11-20T12:00:00Z, a Friday in office hours: stamp and event time of every request."""
SERVICE: Final = "helpdesk-app"
PEOPLE: Final = (
    ("ana.support", "ticket"),
    ("finn.finance", "invoice"),
    ("pia.people", "people"),
    ("eva.eng", "incident"),
    ("leo.lead", "ticket"),
    ("ian.intern", "writing"),
)
_ASKED_TOKENS: Final = (None, 64, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests by partition, in order; every one is allowed under the example company's policy."""

    topic: str
    partitions: Mapping[int, Sequence[Unsent]]

    @property
    def count(self) -> int:
        """How many requests there are."""
        return sum(len(each) for each in self.partitions.values())


def make_load(
    mix: str,
    count: int,
    *,
    topic: str,
    partitions: int,
    env: str,
    installation: Installation,
    now_ms: int = NOON_MS,
    people: Sequence[tuple[str, str]] = PEOPLE,
) -> Load:
    """`count` requests for `topic`, proved at `now_ms`, signed and carried by one service for `people` who take turns.

    Raises:
        ValueError: there is no such mix, or more than `REQUESTS_MAX` are asked for.
    """
    if mix not in MIXES or not 0 < count <= REQUESTS_MAX:
        raise ValueError(f"a mix is one of {', '.join(MIXES)} with 1 to {REQUESTS_MAX} requests")
    service = installation.keys.service(SERVICE)
    audience = proof_audience(env=env, topic=topic)
    tokens = {person: _token(installation, person, now_ms // 1000) for person, _ in people}
    made: dict[int, list[Unsent]] = {partition: [] for partition in range(partitions)}
    for number in range(count):
        person, purpose = people[number % len(people)]
        value = codec.encode(_request(mix, number, purpose))
        key = entity_uid("User", person).encode()
        proof = make_proof(
            service,
            kid=key_id_of(service, "service"),
            service=SERVICE,
            audience=audience,
            key=key,
            value=value,
            now_s=now_ms // 1000,
            jti=f"{number:022d}",
            token=tokens[person],
        )
        unsent = Unsent(key=key, value=value, headers=proof_headers(proof, tokens[person]))
        made[partition_of(key, partitions)].append(unsent)
    return Load(topic=topic, partitions=made)


def _token(installation: Installation, person: str, now_s: int) -> str:
    issuer = installation.keys.issuer(ISSUER_KEY)
    return make_token(
        issuer,
        kid=key_id_of(issuer, "issuer"),
        issuer=ISSUER,
        audience=TOKEN_AUDIENCE,
        claims={"sub": person, "act": {"sub": SERVICE}},
        now_s=now_s,
    )


def _request(mix: str, number: int, purpose: str) -> RequestSubmitted:
    tokens = number + 1 if mix == "distinct" else _ASKED_TOKENS[number % len(_ASKED_TOKENS)]
    text = f"Ticket {number}: the chain of my Heron {number % 7} slipped twice on the way home, please call me back."
    return RequestSubmitted(
        request_id=f"bench-{number}",
        model="smollm2",
        purpose=purpose,
        messages=(Message(role=Role.USER, content=f"What does the customer of ticket {number} want from us?"),),
        documents=(
            Document(
                dataset="tickets",
                document_id=str(number),
                fields=(
                    FieldText(name="text", text=text),
                    FieldText(name="email", text=f"customer{number}@example.com"),
                    FieldText(name="phone", text=f"020 7946 {number % 10_000:04d}"),
                ),
            ),
        ),
        parameters=Parameters(max_tokens=tokens),
    )
