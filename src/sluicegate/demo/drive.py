"""The demo's rows go in, requests go out to a running stack and their releases come back: the only place that sends
them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.clock import advance_to_hour
from sluicegate.demo.attacks import forge_grants, steal_proof, truncate
from sluicegate.demo.cases import Attack, Day, People, Row
from sluicegate.dev_client import Client, Prepared
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.ids import EventKey
from sluicegate.settings import Settings

STALL_S: Final = 120.0
"""How long nothing at all may come back before the stack counts as stalled; a busy machine needs 20 s an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A row, where its request stands and what came back. Forged grants are no requests: they have neither."""

    row: Row
    key: EventKey | None
    release: ReleaseMade | None


Told = Callable[[Row, ReleaseMade | None], None]
"""Called once a row when it is over."""


async def drive(
    settings: Settings, day: Day, people: People, *, told: Told, clock_moved: Callable[[int], None]
) -> tuple[Sent, ...]:
    """Sends every row in order and waits for all releases.

    Rows at one hour are under way together. Before the clock moves, everything before it is over, so that each row is
    decided at its own hour.

    Raises:
        Unavailable: the stack does not answer in time.
    """
    found: dict[str, Sent] = {}
    async with Client(settings) as client:
        waiting: list[asyncio.Task[None]] = []

        async def finish(row: Row, key: EventKey) -> None:
            release = await client.release_of(key, STALL_S * len(day.rows))
            found[row.row] = Sent(row=row, key=key, release=release)
            told(row, release)

        try:
            for row in day.rows:
                if row.clock is not None:
                    await _all_over(waiting)
                    waiting.clear()
                    clock_moved(advance_to_hour(settings.home, row.clock))
                if row.attack is Attack.FORGED_GRANTS:
                    # With nothing under way, each forgery stands where it was sealed for: its signature alone fails.
                    await _all_over(waiting)
                    waiting.clear()
                    await _forge(client, settings, day, people, row)
                    found[row.row] = Sent(row=row, key=None, release=None)
                    told(row, None)
                    continue
                key = await client.publish(_prepared(client, day, people, row))
                waiting.append(asyncio.create_task(finish(row, key)))
            await _all_over(waiting)
        finally:
            for task in waiting:
                task.cancel()
    return tuple(found[row.row] for row in day.rows)


async def _all_over(waiting: Sequence[asyncio.Task[None]]) -> None:
    pending = set(waiting)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=STALL_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise Unavailable(f"no release within {STALL_S:g} s, {len(pending)} rows are open: see `sluicegate status`")
        for task in done:
            task.result()


def _prepared(client: Client, day: Day, people: People, row: Row) -> Prepared:
    person = None if row.by_service else people.resolve(row.who)
    prepared = client.prepare(day.request(row), service=row.via, person=person)
    match row.attack:
        case Attack.STOLEN_PROOF:
            return steal_proof(prepared, day.request(row, request_id=f"{row.request_id}-stolen"))
        case Attack.TRUNCATED:
            return truncate(prepared)
        case _:
            return prepared


async def _forge(client: Client, settings: Settings, day: Day, people: People, row: Row) -> None:
    prepared = client.prepare(day.request(row), service=row.via, person=people.resolve(row.who))
    await forge_grants(client, settings, prepared.key, day.request(row))
