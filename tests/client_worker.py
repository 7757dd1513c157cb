"""A producing service that asks a list of questions and keeps a journal, as often as it is killed and started again.

`python client_worker.py JOB.json`: what was begun and is not done is looked for by its id (even numbers) or asked again
with the same id and body (odd ones). A line of the journal is on the disk before what it tells of goes on.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from sluicegate.client import Answer, Client, ClientConfig, NotAnswered, Parameters, Security
from sluicegate.schemas.errors import Unavailable

AT_ONCE = 4
FIND_S = 8.0
PAUSE_S = 0.05


class Journal:
    """Lines of words in a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        lines = [line.split() for line in path.read_text().splitlines()]
        self.begun = {words[1] for words in lines if words[0] == "begun"}
        self.done = {words[1] for words in lines if words[0] == "done"}

    def write(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())
        os.fsync(self._descriptor)


async def work(job: dict[str, Any]) -> None:
    security = Security(
        protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-512", username=job["service"], password=job["password"]
    )
    config = ClientConfig(
        bootstrap=job["bootstrap"], tenant=job["tenant"], service=job["service"], reply=job["reply"],
        key=Path(job["key"]), trust=Path(job["trust"]), security=security, timeout_s=60.0, request_timeout_s=3.0,
        fetch_wait_ms=20, waiting_max=AT_ONCE,
    )  # fmt: skip
    journal = Journal(Path(job["journal"]))
    while True:
        try:
            async with Client(config) as client:
                turns = asyncio.Semaphore(AT_ONCE)
                await asyncio.gather(*(one(client, job, journal, number, turns) for number in job["numbers"]))
                return
        except Unavailable as error:  # the broker is away while this starts
            journal.write("again", type(error).__name__)
            await asyncio.sleep(0.5)


async def one(client: Client, job: dict[str, Any], journal: Journal, number: int, turns: asyncio.Semaphore) -> None:
    request_id = f"bar-{number}"
    if request_id in journal.done:
        return
    async with turns:
        answer: Answer | None = None
        if request_id in journal.begun and number % 2 == 0:
            try:
                answer = await client.find(request_id, timeout_s=FIND_S)
                how = "found"
            except NotAnswered:
                answer = None
        if answer is None:
            journal.write("begun", request_id)
            how = "again" if request_id in journal.begun else "asked"
            answer = await ask(client, job, number, request_id)
        journal.done.add(request_id)
        place = f"{answer.place.partition}/{answer.place.offset}"
        journal.write(
            "done", request_id, answer.release.release_id, answer.outcome.value, answer.code.value, place, how
        )


async def ask(client: Client, job: dict[str, Any], number: int, request_id: str) -> Answer:
    people = sorted(job["tokens"])
    person = people[number % len(people)]
    while True:
        try:
            return await client.ask(
                model="smollm2",
                purpose="writing",
                text=f"Say {number}.",
                parameters=Parameters(max_tokens=3),
                person_token=job["tokens"][person],
                request_id=request_id,
                deadline_ms=job["deadline_ms"],
            )
        except NotAnswered:
            await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    asyncio.run(work(json.loads(Path(sys.argv[1]).read_text())))
