"""compose.yaml names nothing that is not there: every setting, command, image, port and file is held to the code.

Docker cannot run here: what is checked is what can be read. The Kafka node's own configuration is started for real in
tests/integration/test_compose_kafka.py.
"""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from compose_spec import PyCompose

from sluicegate.cli import LazyGroup
from sluicegate.cli import sluicegate as command_line
from sluicegate.health import OLD_S
from sluicegate.settings import PREFIX, Settings, load_settings
from sluicegate.streams.topology import PUBLISHER, STAGES
from sluicegate.supervisor import RUNNABLE as RUN

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"].startswith("sluicegate:")}
# The container's own variables, as the Kafka image reads them, and CLUSTER_ID, which `start.sh` does.
KAFKA_VARIABLES = {"CLUSTER_ID", "KAFKA_HEAP_OPTS", "LOG_DIR"}


def mounts(service: dict[str, Any], kind: str) -> dict[str, str]:
    """What is mounted into a service, by source: where it stands in the container."""
    found = {}
    for each in service.get(kind, []):
        entry = {"source": each} if isinstance(each, str) else each
        found[entry["source"]] = entry.get("target", f"/run/secrets/{entry['source']}")
    return found


def targets(service: dict[str, Any]) -> set[str]:
    """Every path that a mounted file or folder has in the container."""
    volumes = {each.split(":")[1] for each in service.get("volumes", [])}
    return {*mounts(service, "secrets").values(), *mounts(service, "configs").values(), *volumes}


def ports(service: dict[str, Any]) -> list[str]:
    return list(service.get("ports", []))


def test_it_is_a_compose_file() -> None:
    whole = {name: value for name, value in COMPOSE.items() if not name.startswith("x-")}
    parsed = PyCompose.from_json(json.dumps(whole))
    assert set(parsed.service_names()) == set(SERVICES)
    parsed.validate()
    broken = {**whole, "services": {**SERVICES, "sink": {**SERVICES["sink"], "restarts": "always"}}}
    with pytest.raises(ValueError, match="restarts"):
        PyCompose.from_json(json.dumps(broken))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_with_a_value_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = OURS[name].get("environment", {})
    assert all(key.startswith(PREFIX) for key in environment)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    changed = {key.removeprefix(PREFIX).lower() for key in environment}
    assert changed <= set(Settings.model_fields)
    # A host alone is no broker, a password alone no account: what belongs together is there together.
    if settings.bootstrap:
        assert settings.sasl_username
        assert settings.sasl_password_file is not None
        host, _, port = settings.bootstrap.partition(":")
        assert f"{port}" in listener_ports(host)


def listener_ports(host: str) -> set[str]:
    assert host in SERVICES
    text = (DEPLOY / "kafka" / "server.properties").read_text()
    (listeners,) = re.findall(r"^listeners=(.*)$", text, re.MULTILINE)
    return {each.rpartition(":")[2] for each in listeners.split(",") if not each.startswith("CONTROLLER")}


def test_a_variable_that_is_no_setting_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}BOOTSTRAPS", "kafka:9092")
    with pytest.raises(Exception, match="is not a setting"):
        load_settings()


def parses(words: list[str]) -> None:
    """Runs a command line through the command's own parser, and through nothing else."""
    command: click.Command = command_line
    context = click.Context(command, info_name="sluicegate")
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"there is no command `{name}`"
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_parser(context).parse_args(args=list(words))
    with context:
        command.parse_args(context, list(words))


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_the_command_line_knows(name: str) -> None:
    assert isinstance(command_line, LazyGroup)
    parses(OURS[name]["command"])
    check = OURS[name].get("healthcheck")
    if check is not None:
        word, program, *words = check["test"]
        assert (word, program) == ("CMD", "sluicegate")
        parses(words)
        assert words == ["health", OURS[name]["command"][1]]
        assert float(check["interval"].removesuffix("s")) >= OLD_S / 2
    with pytest.raises((AssertionError, click.ClickException)):
        parses([*OURS[name]["command"][:1], "--no-such-thing"])


def test_every_stage_runs_and_says_how_it_is() -> None:
    run = [each["command"][1] for each in OURS.values() if each["command"][0] == "run"]
    assert set(run) == set(RUN) == set(STAGES)
    assert run.count("enforcer") == 2
    assert all("healthcheck" in each for each in SERVICES.values() if each.get("restart") == "unless-stopped")
    found = (each.get("environment", {}).get(f"{PREFIX}INSTANCE_ID") for each in OURS.values())
    ids = [each for each in found if each is not None]
    assert len(ids) == len(set(ids)), "two members of one id push each other out of their group"


def test_every_image_is_pinned_to_a_version_that_the_code_names() -> None:
    pom = (ROOT / "src" / "sluicegate" / "kafka" / "pom.xml").read_text()
    (kafka,) = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([0-9.]+)</version>", pom)
    engine = metadata.version("chdb-core")
    version = metadata.version("sluicegate")
    wanted = {
        "kafka": f"apache/kafka:{kafka}",
        "clickhouse": f"clickhouse/clickhouse-server:{'.'.join(engine.split('.')[:2])}",
        **dict.fromkeys(OURS, f"sluicegate:{version}"),
        "runner-gpu": f"sluicegate:{version}-gpu",
    }
    assert {name: each["image"] for name, each in SERVICES.items()} == wanted
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm|cpu", each) for each in bases), bases
    (runtime,) = re.findall(r'"onnxruntime-gpu\[cuda,cudnn\]==([0-9.]+)"', dockerfile)
    assert f"\nonnxruntime-gpu=={runtime} " in (ROOT / "requirements" / "serve.lock").read_text()
    assert set(re.findall(r"sluicegate:(\S+)", dockerfile)) <= {version}


def test_the_dockerfile_copies_what_is_there_and_the_build_sees_it() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert "requirements/serve.lock" in sources
    assert [each for each in sources if not (ROOT / each).exists()] == []
    seen = [line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [each for each in sources if each.partition("/")[0] not in seen] == []
    linked = {path.readlink().name for path in (ROOT / "src" / "sluicegate").iterdir() if path.is_symlink()}
    assert linked <= set(sources), "what `src/sluicegate` links to is copied too"
    assert not {"deploy", "tests", ".git"} & set(seen)


def test_only_one_port_is_open_and_to_this_machine_alone() -> None:
    opened = {name: ports(each) for name, each in SERVICES.items() if ports(each)}
    assert opened == {"kafka": ["127.0.0.1:9094:9094"]}
    text = (DEPLOY / "kafka" / "server.properties").read_text()
    assert "OUTSIDE://localhost:9094" in text
    assert COMPOSE["networks"]["gate"] == {"internal": True}
    for name, each in SERVICES.items():
        assert set(each["networks"]) == ({"gate", "host"} if ports(each) else {"gate"}), name


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_is_root_or_may_become_it_or_writes_to_its_image(name: str) -> None:
    each = SERVICES[name]
    user, _, group = each["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"])
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["restart"] == "unless-stopped" if "healthcheck" in each else each.get("restart") in (None, "on-failure")
    assert "privileged" not in each


def declared(kind: str) -> set[str]:
    return set(COMPOSE[kind])


@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_every_secret_and_file_is_declared_and_used(kind: str) -> None:
    used = {source for each in SERVICES.values() for source in mounts(each, kind)}
    assert used == declared(kind)


def test_every_volume_network_and_dependency_is_declared() -> None:
    named = {
        source
        for each in SERVICES.values()
        for source in (volume.split(":")[0] for volume in each.get("volumes", []))
        if not source.startswith(".")
    }
    assert named == declared("volumes")
    assert {network for each in SERVICES.values() for network in each["networks"]} == declared("networks")
    for name, each in SERVICES.items():
        for other, how in each.get("depends_on", {}).items():
            assert other in SERVICES
            ends = SERVICES[other].get("restart") == "on-failure"
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, other)
            assert ends or "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", OURS)
def test_every_file_that_a_setting_names_is_mounted_there(name: str) -> None:
    each = OURS[name]
    there = targets(each)
    for key, value in each.get("environment", {}).items():
        if key.endswith("_FILE"):
            assert value in there, f"{key} of {name}"
    for word in each["command"]:
        if word.startswith("/"):
            assert word in there
    for key in (f"{PREFIX}BUNDLE_DIR", f"{PREFIX}MODEL_SOURCE"):
        path = each.get("environment", {}).get(key)
        assert path is None or any(path == at or path.startswith(f"{at}/") for at in there)


def held(name: str) -> set[str]:
    return set(mounts(SERVICES[name], "secrets"))


def test_each_service_holds_its_own_secrets_and_no_other() -> None:
    for name, each in OURS.items():
        environment = each.get("environment", {})
        user = environment.get(f"{PREFIX}SASL_USERNAME")
        brokers = {source for source in held(name) if source.startswith("kafka.")}
        assert brokers == (set() if user is None else {f"kafka.{user}"}), name
        keys = {source for source in held(name) if source.endswith(".pem")}
        word, *rest = each["command"]
        sealing = {"enforcer", "runner", "redactor", "shadow"} & set(rest) if word == "run" else set()
        others = {"publish": {"publisher.pem"}, "run freshness": {"freshness.pem"}}
        assert keys == ({f"stage-{stage}.pem" for stage in sealing} or others.get(" ".join(each["command"]), set()))
    users = {f"kafka.main.{stage}" for stage in {*STAGES, PUBLISHER}}
    assert users <= held("kafka")
    assert not {source for name in SERVICES for source in held(name) if source.startswith("root")}


def test_no_key_or_password_enters_the_tree() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/deploy/secrets/", "/deploy/offline/"} <= set(ignored)
    made = [each["file"] for kind in ("secrets", "configs") for each in COMPOSE[kind].values()]
    assert all(
        each.startswith("deploy/secrets/") for each in made if not (ROOT / each).is_relative_to(DEPLOY / "kafka")
    )
