"""A stage's health: written only while it is well, old after half a minute, gone when it ends."""

import asyncio
import json
from pathlib import Path

import pytest

from sluicegate import cli
from sluicegate.health import OLD_S, health_file, problem_of, report_health


async def test_it_is_written_while_well_grows_old_and_goes_with_the_stage(tmp_path: Path) -> None:
    file, asked, well = health_file(tmp_path, "enforcer"), [0], [False]

    async def is_well() -> bool:
        asked[0] += 1
        return well[0]

    task = asyncio.create_task(report_health(file, well=is_well, every_s=0.001, now_s=lambda: 1_000.0))
    await until(asked, 3)
    assert problem_of(file, now_s=1_000.0) == "it does not run, or is not ready yet"
    well[0] = True
    await until(asked, asked[0] + 3)
    assert problem_of(file, now_s=1_000.0 + OLD_S) is None
    assert "31 s ago" in str(problem_of(file, now_s=1_000.0 + OLD_S + 1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not file.exists()


async def until(asked: list[int], times: int) -> None:
    async with asyncio.timeout(5):
        while asked[0] < times:  # noqa: ASYNC110 - the count tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"pid": 1, "at_s": 2, "more": 3}', b"\xff"])
def test_a_file_that_says_nothing_is_no_health(tmp_path: Path, content: bytes) -> None:
    file = health_file(tmp_path, "sink")
    file.write_bytes(content)
    assert "cannot be read" in str(problem_of(file, now_s=0.0))


def test_the_exit_code_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEGATE_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    assert cli.main(["health", "runner"]) == 1
    health_file(tmp_path / "run", "runner").write_text(json.dumps({"pid": 1, "at_s": 4e9}))
    assert cli.main(["health", "runner"]) == 0
    assert cli.main(["health", "nothing"]) == 2
