"""What Maven and Java may do to us: nothing half is ever taken, and what is missing is named with the line to type."""

import os
from pathlib import Path

import pytest

from sluicegate import kafka_jars as jars
from sluicegate.kafka_jars import find_java, kafka_jars, require_tools
from sluicegate.schemas.errors import ConfigurationError

INSTALL = r"`apt-get install openjdk-17-jre-headless maven`"
# Finds the folder that it is told to fill, as Maven's plugin does.
MAVEN = """#!/bin/sh
for word; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done
echo run >> "$0.runs"
"""
GOOD = MAVEN + 'mkdir "$out"; echo jar > "$out/kafka-server-4.4.0.jar"; echo jar > "$out/other.jar"\n'
HALF = MAVEN + 'mkdir "$out"; echo jar > "$out/kafka-server-4.4.0.jar"; kill -9 $$\n'
EMPTY = MAVEN + 'mkdir "$out"\n'
OFFLINE = MAVEN + 'echo "[INFO] hello"; echo "[ERROR] Could not transfer artifact x"; echo "[ERROR] more"; exit 1\n'


class Machine:
    """A PATH of our own and a cache of our own."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.cache = folder / "cache"
        self.bin.mkdir()

    def put(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def java(self, says: str) -> None:
        self.put("java", f"#!/bin/sh\necho '{says}' >&2\n")

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(found.cache))
    here = str(found.bin)
    # Only what a test puts there: this machine may have both.
    monkeypatch.setattr(jars.shutil, "which", lambda name: f"{here}/{name}" if (found.bin / name).exists() else None)
    return found


@pytest.mark.parametrize("says", ['openjdk version "17.0.15" 2025-04-15', 'openjdk version "21-ea"', 'version "17"'])
def test_a_java_that_is_new_enough_is_taken_by_its_build(machine: Machine, says: str) -> None:
    machine.java(says)
    first = find_java()
    assert first.path == machine.bin / "java"
    machine.java(says + " another build")
    assert find_java().digest != first.digest


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (None, r"needs Java 17 and there is no `java`"),
        ('java version "1.8.0_402"', r"needs Java 17 and `.*/java` is 1"),
        ('openjdk version "16.0.2" 2021-07-20', r"needs Java 17 and `.*/java` is 16"),
        ("no runtime present", r"names no version \(exit 0\)"),
    ],
)
def test_a_java_that_cannot_run_it_is_told_with_the_line_to_type(machine: Machine, says: str | None, why: str) -> None:
    if says is not None:
        machine.java(says)
    with pytest.raises(ConfigurationError, match=f"{why}.*{INSTALL}"):
        find_java()


def test_maven_is_needed_until_the_jars_are_there(machine: Machine) -> None:
    machine.java('version "17"')
    for call in (require_tools, kafka_jars):
        with pytest.raises(ConfigurationError, match=f"there is no `mvn`.*{INSTALL}"):
            call()
    machine.put("mvn", GOOD)
    require_tools()
    assert machine.left == [], "looking fetches nothing"
    said: list[str] = []
    folder = kafka_jars(say=said.append)
    assert (len(said), sorted(path.name for path in folder.iterdir())) == (1, ["kafka-server-4.4.0.jar", "other.jar"])
    (machine.bin / "mvn").unlink()
    require_tools()
    assert kafka_jars(say=said.append) == folder
    assert len(said) == 1


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (HALF, r"\(exit -9\): it says nothing"),
        (EMPTY, r"\(exit 0\): it says nothing"),
        (OFFLINE, r"\(exit 1\): Could not transfer artifact x"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_the_next_one_is_whole(
    machine: Machine, script: str, why: str
) -> None:
    machine.put("mvn", script)
    with pytest.raises(ConfigurationError, match=rf"Maven cannot resolve Apache Kafka {why}"):
        kafka_jars()
    assert machine.left == ["kafka", "sluicegate"]
    machine.put("mvn", GOOD)
    assert (kafka_jars() / "other.jar").exists()
    assert (machine.bin / "mvn.runs").read_text().count("run") == 2


def test_who_comes_second_takes_what_the_first_put_there(machine: Machine) -> None:
    # The first one ends while the second one's Maven is at work.
    place = jars._place()
    machine.put("mvn", GOOD + f"mkdir -p {place}; echo first > {place}/kafka-server-4.4.0.jar\n")
    folder = kafka_jars()
    assert (folder, (folder / "kafka-server-4.4.0.jar").read_text()) == (place, "first\n")
    assert set(machine.left) == {"sluicegate", "kafka", place.name, "kafka-server-4.4.0.jar"}, "no draft is left"


def test_a_cache_that_cannot_be_written_is_told(machine: Machine) -> None:
    machine.put("mvn", GOOD)
    machine.cache.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot be kept in `.*` \(not a directory\): .*`XDG_CACHE_HOME`"):
        kafka_jars()
