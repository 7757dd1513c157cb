"""The name of an environment goes in, the settings that reach its broker and policy log come out; only here by name.

Each environment but the own one is a file `NAME.env` in the folder `SLUICEGATE_ENVIRONMENTS_DIR`, with the settings of
whoever publishes to it. What this process remembers of it lies in a data directory of its own.
"""

from dataclasses import dataclass, replace
from typing import Final

from sluicegate.attached import attach
from sluicegate.home import Home, open_home
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings, load_settings, read_settings

ENDING: Final = ".env"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One environment. `one_box`: a development stack that runs here and holds all its keys."""

    name: str
    settings: Settings
    one_box: bool = False


def described(name: str | None = None) -> Environment:
    """The environment of that name, whether or not its broker is there; without one, that of this process's settings.

    Raises:
        ConfigurationError: there is none of this name, or its settings are wrong.
    """
    own = load_settings()
    home = open_home(own.home)
    if name is not None and (file := own.environments_dir / f"{name}{ENDING}").is_file() and file.stem == name:
        named = read_settings(file, env=name, home=home.root / "environments" / name)
        (home.root / "environments").mkdir(mode=0o700, exist_ok=True)
        return Environment(name=name, settings=named.model_copy(update={"home": open_home(named.home).root}))
    if name is None or name == own.env:
        return Environment(name=own.env, settings=own.model_copy(update={"home": home.root}))
    known = ", ".join(f"`{each}`" for each in named_environments()) or "none"
    raise ConfigurationError(
        f"there is no environment `{name}`: write its settings into `{own.environments_dir / (name + ENDING)}`, "
        f"or take one of these: {known}"
    )


def environment(name: str | None = None) -> Environment:
    """The environment of that name, pointed at its broker.

    Raises:
        ConfigurationError: as `described`.
        Unavailable: its settings name no broker, or its stack is starting.
    """
    found = described(name)
    attached, one_box = attach(found.settings, Home(root=found.settings.home))
    return replace(found, settings=attached, one_box=one_box)


def named_environments() -> tuple[str, ...]:
    """Every environment with a file, by name.

    Raises:
        ConfigurationError: this process's own settings are wrong.
    """
    return tuple(sorted(each.stem for each in load_settings().environments_dir.glob(f"*{ENDING}")))
