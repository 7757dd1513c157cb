"""What a replay says, and the limit that fails it."""

import pytest

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.sinks.replay_report import FieldChange, Report, fail_on, render

LEAK = FieldChange(
    field="people.salary", principal='User::"ian"', request="demo-06", policies=("people-team-reads-pay",),
    places=("pay.cedar:4",), text="41,500 pounds",
)  # fmt: skip


def report(*, leaks: int = 0, mismatches: tuple[str, ...] = (), missing: dict[str, int] | None = None) -> Report:
    return Report(
        candidate="sha256:c", recorded=("sha256:r",), requests=6, decided=18, mismatches=mismatches,
        not_replayable=missing or {}, settled={"STOPPED": 2, "POISON": 1},
        newly_readable=(LEAK,) * leaks, no_longer_readable=(), newly_allowed=(),
        newly_denied=(), obligations_changed=(), prompts_changed=(), files_changed=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "leaks", "fails"),
    [
        ("newly-readable>0", 0, False),
        ("newly-readable>0", 1, True),
        ("newly-readable > 1", 1, False),
        ("newly-readable>=1", 1, True),
        (" newly-readable >= 2 ", 1, False),
        ("newly-readable==1", 1, True),
        ("newly-readable==1", 2, False),
        ("newly-denied>0", 5, False),
    ],
)
def test_a_limit_fails_exactly_beyond_it(expression: str, leaks: int, fails: bool) -> None:
    assert (fail_on(expression).broken_by(report(leaks=leaks)) is not None) is fails


@pytest.mark.parametrize("metric", sorted(report().metrics()))
def test_every_figure_can_be_limited(metric: str) -> None:
    assert fail_on(f"{metric}>=0").broken_by(report()) == f"FAIL {metric} 0 >= 0"


@pytest.mark.parametrize(
    "expression", ["", "newly-readable", ">0", "salary>0", "newly-readable<1", "newly-readable>-1", "newly-readable>0;"]
)
def test_what_is_no_limit_is_refused(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="is no limit"):
        fail_on(expression)


def test_fields_come_first_and_what_cannot_be_relied_on_is_said() -> None:
    text = render(report(leaks=1, mismatches=("d1-0-0 read x",), missing={"no directory": 2})).plain
    lines = text.splitlines()
    assert "as recorded 17/18, 2 not replayable" in lines[0]
    assert lines[2] == " settled 3 before a bundle is asked, whatever it says: POISON 1, STOPPED 2"
    assert "MISMATCH" in lines[3]
    assert text.index("people.salary") < text.index("newly allowed")
    assert "pay.cedar:4" in text
    assert "nothing would change" not in text
    assert "nothing would change" in render(report()).plain


def test_long_lists_are_cut_with_a_count() -> None:
    assert "and 30 more" in render(report(leaks=50)).plain


def test_machines_get_names_and_figures_but_no_values() -> None:
    found = report(leaks=1).as_json()
    assert found["metrics"]["newly-readable"] == 1  # type: ignore[index]
    assert "41,500" not in repr(found)
