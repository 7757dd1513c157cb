"""What people write, what the model answers and what proves who asks: in the audit, and in no log."""

import asyncio
import base64
from dataclasses import dataclass, replace

import pytest
from attacker import grant, unsent
from by_hand import ANSWER_LIMIT_S, PERSON, SERVICE
from fixtures_stack import Row, StackPlace, ask, landed

from sluicegate.dev_client import Client
from sluicegate.enforcer.identity import TOKEN_HEADER
from sluicegate.schemas.codes import ReleaseOutcome
from sluicegate.schemas.events import (
    Document,
    FieldText,
    Message,
    ReleaseMade,
    Role,
)
from sluicegate.schemas.records import Unsent
from sluicegate.supervisor import BROKER, STAGES

CANARIES = {
    "message": "quetzal-message-5f1c",
    "field": "quetzal-field-77aa",
    "poison": "quetzal-poison-90be",
    "model": "quetzal-model-3d0f",
    "grant": "quetzal-grant-c4e2",
    "policy": "quetzal-policy-1b6d",
}


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What went through the stack and must stay out of its logs."""

    release: ReleaseMade
    tokens: tuple[str, ...]


@pytest.fixture(scope="module")
def told(stack: StackPlace) -> Secrets:
    return asyncio.run(tell(stack))


async def tell(stack: StackPlace) -> Secrets:
    settings = stack.attached()
    async with Client(settings) as client:
        document = Document(
            dataset="roadmap", document_id="1", fields=(FieldText(name="text", text=f"We build {CANARIES['field']}."),)
        )
        message = Message(role=Role.USER, content=f"Write a line about {CANARIES['message']}.")
        request = ask("canary-1", purpose="roadmap", max_tokens=24, messages=(message,), documents=(document,))
        prepared = client.prepare(request, service=SERVICE, person=PERSON)
        key = await client.publish(prepared)
        bad = [
            replace(prepared, value=b"\xc3\x01" + CANARIES["poison"].encode()),
            replace(prepared, value=prepared.value + b"\x00"),
            client.prepare(ask("canary-2", model=CANARIES["model"]), service=SERVICE, person=PERSON),
            client.prepare(ask("canary-3", CANARIES["message"] + "\x00"), service=SERVICE, person=PERSON),
        ]
        keys = [await client.publish(each) for each in bad]
        # Records that the stages themselves complain of.
        await client.append(client.topology.decisions, key.partition, [unsent(grant(0, CANARIES["grant"]))])
        noise = Unsent(key=None, value=CANARIES["policy"].encode())
        await client.append(client.topology.policy, 0, [noise])
        release = await client.release_of(key, ANSWER_LIMIT_S)
        for each in keys:
            assert (await client.release_of(each, ANSWER_LIMIT_S)).outcome is not ReleaseOutcome.RELEASED
    await landed(stack, settings)
    tokens = [value.decode() for each in (prepared, *bad[2:]) for name, value in each.headers if name == TOKEN_HEADER]
    return Secrets(release=release, tokens=tuple(tokens))


def found_in(texts: dict[str, str], word: str) -> list[str]:
    """The files that hold a word as it stands or in base64 or hexadecimal."""
    raw = word.encode()
    forms = {word, base64.b64encode(raw).decode().rstrip("=")[:-1], raw.hex()}
    return [name for name, text in texts.items() if any(form in text for form in forms)]


def test_no_content_reaches_a_log_and_the_audit_has_it(told: Secrets, stack: StackPlace) -> None:
    """Invariant 12, at log level DEBUG."""
    logs = stack.logs()
    assert set(logs) == {f"{name}.log" for name in ("up", BROKER, *STAGES)}
    assert found_in(logs, "policy event unreadable"), "the stack logs, and this search finds it"
    text = told.release.text or ""
    assert len(text) > 20
    assert len(told.tokens) == 3
    secret = {**CANARIES, "answer": text[:20]}
    for number, token in enumerate(told.tokens):
        secret |= {
            f"claims of token {number}": token.split(".")[1],
            f"signature of token {number}": token.split(".")[2],
        }
    assert {name: files for name, word in secret.items() if (files := found_in(logs, word))} == {}

    def rows(table: str, column: str, word: str) -> int:
        found: Row = stack.sql(f"SELECT count() AS n FROM {table} WHERE position({column}, '{word}') > 0")[0]
        return int(found["n"])

    assert rows("requests", "value", CANARIES["message"]) == 3
    assert rows("requests", "value", CANARIES["field"]) == 2
    assert rows("requests", "value", CANARIES["poison"]) == 1
    assert rows("requests", "value", CANARIES["model"]) == 1
    assert rows("decisions", "value", CANARIES["grant"]) == 1
    assert rows("policy", "value", CANARIES["policy"]) == 1
    assert stack.sql("SELECT answer FROM asks WHERE request_id = 'canary-1'") == [{"answer": text}]
    spent = stack.sql("SELECT arrayFlatten(arrayMap(h -> [h.name, h.value], headers)) AS h FROM requests")
    assert not [row for row in spent for token in told.tokens if token in row["h"]], "no token lands anywhere"
    assert {name for row in spent for name in row["h"][::2]} >= {"sg-proof"}


def test_nothing_of_a_request_lies_in_temporary_files(told: Secrets, stack: StackPlace) -> None:
    """Invariant 12: what a process leaves behind while it runs."""
    words = [word.encode() for word in CANARIES.values()]
    for folder in (stack.home.tmp, stack.home.run):
        for path in folder.rglob("*"):
            if path.is_file():
                assert not [word for word in words if word in path.read_bytes()], path
