"""Each thing that can be wrong is found and comes with a line that mends it; what is well is not complained about."""

import os
import socket
from pathlib import Path

import pytest

from sluicegate.doctor.deployment import check_members, check_policy, check_stage_keys, check_stamps
from sluicegate.doctor.findings import Finding, Level, ok
from sluicegate.doctor.machine import (
    check_clock,
    check_disk,
    check_keys,
    check_libraries,
    check_model,
    check_ports,
    check_provider,
    check_runtimes,
    check_transport,
    clock_state,
    installed_versions,
    listening_of,
)
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.state import NotReady, PolicyLog, Rules
from sluicegate.keys import KeyFolder, key_id_of
from sluicegate.schemas.events import PolicyVersion
from sluicegate.schemas.ids import KeyId
from sluicegate.settings import Settings

NOW_MS = 1_795_000_000_000
DAY_MS = 24 * 3600 * 1000


def levels(found: "list[Finding]") -> list[str]:
    return [each.level.name for each in found]


def test_whatever_is_wrong_names_its_cure_and_what_is_well_names_none() -> None:
    assert ok("disk", "fine").mend == ""
    with pytest.raises(ValueError, match="how to mend"):
        Finding(check="disk", level=Level.FAIL, what="full")
    with pytest.raises(ValueError, match="how to mend"):
        Finding(check="disk", level=Level.OK, what="fine", mend="nothing")


@pytest.mark.parametrize(
    ("requirement", "installed", "wanted"),
    [
        ("fastavro<2,>=1.13", {"fastavro": "1.13.1"}, ["OK"]),
        ("fastavro<2,>=1.13", {"fastavro": "2.0"}, ["FAIL"]),
        ("fastavro<2,>=1.13", {}, ["FAIL"]),
        ("Faust_Streaming==0.15.3", {"faust-streaming": "0.15.3"}, ["OK"]),
        ('torch==2.15.0; extra == "export"', {}, ["OK"]),
    ],
)
def test_a_library_out_of_its_range_is_named(requirement: str, installed: dict[str, str], wanted: list[str]) -> None:
    found = list(check_libraries([requirement], installed))
    assert levels(found) == wanted
    if wanted == ["FAIL"]:
        assert "fastavro" in found[0].what
        assert "pip install" in found[0].mend


@pytest.mark.parametrize(
    ("there", "wanted"),
    [(["onnxruntime"], "OK"), (["onnxruntime-gpu"], "OK"), ([], "FAIL"), (["onnxruntime", "onnxruntime-gpu"], "FAIL")],
)
def test_the_two_runtimes_never_stand_beside_each_other(there: list[str], wanted: str) -> None:
    assert levels(list(check_runtimes(dict.fromkeys(there, "1.31.1")))) == [wanted]


def test_this_machine_has_its_libraries_and_one_runtime() -> None:
    installed = installed_versions()
    assert levels(list(check_runtimes(installed))) == ["OK"]
    assert installed["faust-streaming"] == "0.15.3"


def test_a_provider_that_the_runtime_does_not_offer_is_told_before_a_model_is_loaded() -> None:
    assert levels(list(check_provider("cpu", ["CPUExecutionProvider"]))) == ["OK"]
    assert levels(list(check_provider("cuda", ["CPUExecutionProvider"]))) == ["FAIL"]
    assert levels(list(check_provider("cuda", ["CUDAExecutionProvider"]))) == ["OK"]


def test_disk_and_model(tmp_path: Path) -> None:
    assert levels(list(check_disk(tmp_path, 1))) == ["OK"]
    assert levels(list(check_disk(tmp_path, 10**9))) == ["FAIL"]
    weights = tmp_path / "model.gguf"
    settings = Settings(model_source=str(weights))
    assert levels(list(check_model(settings))) == ["WARN"]
    weights.touch()
    assert levels(list(check_model(settings))) == ["OK"]


def test_a_key_that_others_can_read_is_found_among_good_ones(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert levels(list(check_keys(folder))) == ["WARN"]
    keys = KeyFolder(folder)
    keys.stage("enforcer"), keys.stage("runner")
    assert levels(list(check_keys(folder))) == ["OK"]
    (folder / "stage-runner.pem").chmod(0o640)
    found = list(check_keys(folder))
    assert levels(found) == ["FAIL"]
    assert "stage-runner.pem" in found[0].what
    (folder / "stage-runner.pem").chmod(0o600)
    folder.chmod(0o750)
    assert levels(list(check_keys(folder))) == ["FAIL"]


def test_the_clock_is_read_from_the_kernel() -> None:
    assert [levels(list(check_clock(state))) for state in (0, 5, -1)] == [["OK"], ["WARN"], ["WARN"]]
    assert -1 <= clock_state() <= 5


def test_a_socket_that_other_machines_reach_is_found() -> None:
    assert levels(list(check_ports([]))) == ["OK"]
    assert levels(
        list(check_ports([("broker", "127.0.0.1", 9092), ("broker", "::1", 9092), ("broker", "::ffff:127.0.0.1", 1)]))
    ) == ["OK"]
    assert levels(list(check_ports([("broker", "127.0.0.1", 1), ("broker", "0.0.0.0", 9092)]))) == ["FAIL"]
    assert levels(list(check_ports([("broker", "::", 9092), ("broker", "::ffff:192.0.2.1", 1)]))) == ["FAIL", "FAIL"]


def test_what_a_process_listens_on_is_seen() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        before = listening_of({"test": os.getpid()})
        listening.listen()
        port = listening.getsockname()[1]
        assert ("test", "127.0.0.1", port) in listening_of({"test": os.getpid()})
        assert ("test", "127.0.0.1", port) not in before
    assert listening_of({"gone": 2**22 + 1}) == []


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, "OK"),
        ({"bootstrap": "127.0.0.1:9092"}, "OK"),
        ({"bootstrap": "192.0.2.1:9092"}, "FAIL"),
        ({"bootstrap": "192.0.2.1:9092", "security_protocol": "SASL_PLAINTEXT"}, "FAIL"),
        ({"bootstrap": "192.0.2.1:9092", "security_protocol": "SASL_SSL"}, "OK"),
        ({"bootstrap": "192.0.2.1:9092", "security_protocol": "SSL"}, "FAIL"),
        ({"bootstrap": "127.0.0.1:1,192.0.2.1:9092"}, "FAIL"),
        ({"clickhouse_host": "192.0.2.1", "clickhouse_scheme": "http"}, "FAIL"),
        ({"clickhouse_host": "192.0.2.1"}, "OK"),
    ],
)
def test_what_leaves_the_machine_in_the_open_is_told(settings: dict[str, str], wanted: str) -> None:
    assert levels(list(check_transport(Settings(**settings)))) == [wanted]  # type: ignore[arg-type]


def test_a_stage_that_nobody_runs_is_told() -> None:
    assert levels(list(check_members({"enforcer": 2, "runner": 1}))) == ["OK"]
    found = list(check_members({"enforcer": 2, "runner": 0}))
    assert levels(found) == ["FAIL"]
    assert "sluicegate run runner" in found[0].mend


def test_a_broker_clock_ahead_of_ours_is_told() -> None:
    assert levels(list(check_stamps({"a": NOW_MS - DAY_MS, "b": NOW_MS + 1000}, now_ms=NOW_MS))) == ["OK"]
    assert levels(list(check_stamps({"a": NOW_MS, "b": NOW_MS + 60_000}, now_ms=NOW_MS))) == ["FAIL"]


class StateDouble(PolicyLog):
    """A policy log that says what a test wants."""

    def __init__(self, rules: Rules | NotReady, keys: dict[KeyId, StageKey] | None = None) -> None:
        self._rules, self._keys = rules, keys or {}

    def at(self, time_ms: int) -> Rules | NotReady:
        del time_ms
        return self._rules

    def stage_keys(self, stage: str) -> dict[KeyId, StageKey]:
        return {name: key for name, key in self._keys.items() if key.stage == stage}


def rules() -> Rules:
    version = PolicyVersion(
        position=3, root_version=1, bundle_version=2, bundle_digest="d", directory_version=4, directory_digest="e"
    )
    return Rules(judging=None, credentials=None, version=version)  # type: ignore[arg-type]


def test_a_policy_that_is_missing_or_about_to_expire_is_told() -> None:
    far = {"root": NOW_MS + 100 * DAY_MS}
    missing = StateDouble(NotReady(reason="no bundle is in force"))
    assert levels(list(check_policy(missing, now_ms=NOW_MS, expires_ms=far))) == ["FAIL"]
    there = StateDouble(rules())
    assert levels(list(check_policy(there, now_ms=NOW_MS, expires_ms=far))) == ["OK"]
    near = {"root": NOW_MS + 100 * DAY_MS, "bundle": NOW_MS + DAY_MS}
    found = list(check_policy(there, now_ms=NOW_MS, expires_ms=near))
    assert levels(found) == ["OK", "WARN"]
    assert "bundle" in found[1].what


def test_a_stage_key_that_is_not_admitted_or_revoked_is_told(tmp_path: Path) -> None:
    private = KeyFolder(tmp_path / "keys").stage("enforcer")
    key_id = key_id_of(private, "enforcer")

    def admitted(revoked_at_ms: int | None) -> StateDouble:
        key = StageKey(
            key_id=KeyId(key_id),
            stage="enforcer",
            public=private.public_key(),
            not_before_ms=0,
            revoked_at_ms=revoked_at_ms,
        )
        return StateDouble(rules(), {KeyId(key_id): key})

    own = {"enforcer": key_id}
    assert levels(list(check_stage_keys(admitted(None), own, now_ms=NOW_MS))) == ["OK"]
    assert levels(list(check_stage_keys(admitted(NOW_MS + 1), own, now_ms=NOW_MS))) == ["OK"]
    assert levels(list(check_stage_keys(admitted(NOW_MS), own, now_ms=NOW_MS))) == ["FAIL"]
    assert levels(list(check_stage_keys(StateDouble(rules()), own, now_ms=NOW_MS))) == ["FAIL"]
    assert list(check_stage_keys(StateDouble(rules()), {}, now_ms=NOW_MS)) == []
