"""Settings: defaults hold together, a wrong name or value is one line, nothing turns the gate off."""

from pathlib import Path

import pytest

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import PREFIX, Settings, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def test_the_defaults_are_the_embedded_stack() -> None:
    settings = load_settings()
    assert settings.bootstrap == ""
    assert settings.home == Path(".sluicegate")
    assert settings.directory == Path("policies/directory.json")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SLUICEGATE_PARTITION", "did you mean `SLUICEGATE_PARTITIONS`?"),
        ("sluicegate_windowsize", "did you mean `SLUICEGATE_WINDOW_SIZE`?"),
        ("SLUICEGATE_QQQQQQQQQQ", "unset it"),
        ("SLUICEGATE_GATE_OFF", ""),
    ],
)
def test_an_unknown_variable_with_our_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"`{name}` is not a setting" in str(caught.value)
    assert hint in str(caught.value)


def test_a_variable_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_GATE", "1")
    monkeypatch.setenv("SLUICEGATE_PARTITIONS", "3")
    assert load_settings().partitions == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "four"),
        ("REQUEST_BYTES_MAX", "-1"),
        ("SESSION_TIMEOUT_S", "0"),
        ("BROKER_PORT", "70000"),
        ("ENV", "Prod Env"),
        ("TENANT", "a.b"),
        ("EVENT_TIME", "producer"),
        ("LOG_LEVEL", "LOUD"),
        ("WINDOW_SIZE", "0"),
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"`{PREFIX}{name}` is `{value}`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slice_holds_the_decision_on_the_largest_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEGATE_REQUEST_BYTES_MAX", "400000")
    with pytest.raises(ConfigurationError, match="`SLUICEGATE_SLICE_BYTES_MAX` must be at least three times"):
        load_settings()
    monkeypatch.setenv("SLUICEGATE_SLICE_BYTES_MAX", "1200000")
    assert load_settings().slice_bytes_max == 1_200_000


def test_a_child_reads_the_settings_its_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEGATE_TENANT", "heron")
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "x")
    parent = load_settings().attached(bootstrap="127.0.0.1:1234", epoch=7)
    environment = parent.environment()
    assert "SECRET_OF_THE_SHELL" not in environment
    assert environment["SLUICEGATE_TENANT"] == "heron"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    child = load_settings()
    assert child == parent
    assert (child.event_time, child.epoch) == ("enforcer", 7)


def test_settings_do_not_change_and_take_no_unknown_name() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.partitions = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        Settings(gate=False)  # type: ignore[call-arg]


def test_no_setting_turns_anything_off() -> None:
    # Every setting is a number, a word or a path: a switch would be a boolean, and there is none.
    assert {name for name, field in Settings.model_fields.items() if field.annotation is bool} == set()
    words = {"off", "disable", "skip", "bypass", "ungated", "without", "allow", "enable"}
    assert {name for name in Settings.model_fields if words & set(name.split("_"))} == set()
    assert words & {"skip", "gate"}, "the search finds nothing"


def test_a_limit_carries_its_unit() -> None:
    units = ("bytes", "records", "tokens", "mb", "s", "ms")
    for name in Settings.model_fields:
        if name.endswith(("_max", "_min")):
            assert name.split("_")[-2] in units, name
        if "timeout" in name or "wait" in name or "after" in name:
            assert name.split("_")[-1] in units, name
