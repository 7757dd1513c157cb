"""The packaged `pom.xml` goes in, a folder of Apache Kafka's jars and the Java that runs them come out: the only place
that calls Maven.

The jars lie in the user's cache, in a folder named by the digest of the pom. They are resolved into a draft beside it
that is renamed whole, so a download that was killed leaves nothing that a later start would take.
"""

import contextlib
import hashlib
import importlib.resources
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import cache_folder

PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies"
MAVEN_LIMIT_S: Final = 900.0
JAVA_LIMIT_S: Final = 30.0
JAVA_MIN: Final = 17
"""What the servers of Apache Kafka 4 need."""
INSTALL: Final = "install it (Debian and Ubuntu: `apt-get install openjdk-17-jre-headless maven`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """An executable that is new enough; `digest` names its exact build."""

    path: Path
    digest: str


def find_java() -> Java:
    """Return the `java` of PATH.

    Raises:
        ConfigurationError: there is none, it does not run or it is too old.
    """
    found = shutil.which("java")
    if found is None:
        raise ConfigurationError(f"Apache Kafka needs Java {JAVA_MIN} and there is no `java`: {INSTALL}")
    try:
        done = subprocess.run([found, "-version"], capture_output=True, check=False, timeout=JAVA_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"`{found}` does not run ({type(error).__name__}): {INSTALL}") from None
    text = done.stderr + done.stdout
    # 1.8 and older count differently; the new form is "17", "17.0.15" or "21-ea".
    version = re.search(rb'version "(\d+)', text)
    if version is None:
        raise ConfigurationError(f"`{found} -version` names no version (exit {done.returncode}): {INSTALL}")
    if int(version[1]) < JAVA_MIN:
        raise ConfigurationError(f"Apache Kafka needs Java {JAVA_MIN} and `{found}` is {int(version[1])}: {INSTALL}")
    return Java(path=Path(found).resolve(), digest=hashlib.sha256(text).hexdigest()[:12])


def cached() -> Path | None:
    """Return the folder of the jars where they were resolved before."""
    folder = _place()
    return folder if folder.is_dir() else None


def require_tools() -> None:
    """Check that Java is there, and Maven where the jars still have to be fetched; this fetches nothing.

    Raises:
        ConfigurationError: one is missing.
    """
    find_java()
    if cached() is None:
        _find_maven()


def kafka_jars(*, say: Callable[[str], None] | None = None) -> Path:
    """Return the folder that holds the jars; Maven fetches them once. `say` hears a line before that.

    Raises:
        ConfigurationError: Maven is missing or cannot resolve them, or the cache cannot be written.
    """
    found = cached()
    if found is not None:
        return found
    maven, place = _find_maven(), _place()
    if say is not None:
        say("fetching Apache Kafka, once (about 43 MB)")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=place.parent) as folder:
            _resolve(maven, Path(folder))
            # Somebody else may have been quicker: theirs is the same, and a full folder is not replaced.
            with contextlib.suppress(FileExistsError):
                _rename(Path(folder) / "libs", place)
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        msg = f"the jars of Apache Kafka cannot be kept in `{place.parent}` ({why}): mend that, or set `XDG_CACHE_HOME`"
        raise ConfigurationError(msg) from None
    return place


def _place() -> Path:
    return cache_folder() / "sluicegate" / "kafka" / hashlib.sha256(_pom()).hexdigest()[:16]


def _pom() -> bytes:
    return importlib.resources.files("sluicegate").joinpath("kafka", "pom.xml").read_bytes()


def _find_maven() -> str:
    found = shutil.which("mvn")
    if found is None:
        raise ConfigurationError(f"Apache Kafka is fetched by Maven and there is no `mvn`: {INSTALL}")
    return found


def _resolve(maven: str, folder: Path) -> None:
    (folder / "pom.xml").write_bytes(_pom())
    command = (maven, "-q", "-B", PLUGIN, f"-DoutputDirectory={folder / 'libs'}", "-DincludeScope=runtime")
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=MAVEN_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        msg = f"Maven did not resolve Apache Kafka within {MAVEN_LIMIT_S:g} s: look at the network and try again"
        raise ConfigurationError(msg) from None
    lines = done.stdout.decode("utf-8", errors="replace").splitlines()
    if done.returncode != 0 or not any((folder / "libs").glob("kafka-server-*.jar")):
        why = next((line.removeprefix("[ERROR] ") for line in lines if line.startswith("[ERROR]")), "it says nothing")
        msg = f"Maven cannot resolve Apache Kafka (exit {done.returncode}): {why[:300]}"
        raise ConfigurationError(msg)


def _rename(draft: Path, place: Path) -> None:
    try:
        draft.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        raise FileExistsError from None
