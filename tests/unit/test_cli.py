"""The command's frame: each kind of ending has its code and its one line, and help loads no command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from sluicegate import cli
from sluicegate.schemas.errors import ConfigurationError, InvalidBundle, SluicegateError, Unavailable


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Return a function that runs `sluicegate probe` with the given body."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(body: Callable[[], object]) -> int:
        module = type(sys)("sluicegate_probe")
        module.probe = click.Command("probe", callback=body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sluicegate_probe", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("sluicegate_probe:probe", "for the test"))
        return cli.main(["probe"])

    return call


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (raising(SluicegateError("runner died")), 1, "sluicegate: runner died\n"),
        (raising(Unavailable("no\nbroker")), 1, "sluicegate: no broker\n"),
        (raising(InvalidBundle(("a", "b"))), 1, "sluicegate: a; b\n"),
        (raising(ConfigurationError("set it")), 2, "sluicegate: set it\n"),
        (
            raising(click.UsageError("what")),
            2,
            "sluicegate: what (`sluicegate --help` shows how)\n",
        ),
        (raising(click.Abort()), 130, ""),
        (raising(KeyboardInterrupt()), 130, "\n"),
        (raising(click.exceptions.Exit(5)), 5, ""),
    ],
)
def test_each_ending_has_its_code_and_line(
    command: Callable[[Callable[[], object]], int],
    capsys: pytest.CaptureFixture[str],
    body: Callable[[], object],
    code: int,
    line: str,
) -> None:
    assert command(body) == code
    assert capsys.readouterr().err == line


def test_a_bug_passes_through_to_the_hook(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        command(raising(ZeroDivisionError("secret")))
    sys.excepthook(caught.type, caught.value, caught.tb)
    said = capsys.readouterr().err
    assert "secret" not in said
    assert said.startswith("sluicegate: unexpected ZeroDivisionError at ")


@pytest.mark.parametrize("arguments", [["nothing"], ["run", "gate"], ["up", "--loud"], ["run"]])
def test_wrong_words_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("sluicegate: ")
    assert said.count("\n") == 1


def test_every_command_of_the_table_is_there() -> None:
    context = click.Context(cli.sluicegate)
    for name in cli.sluicegate.list_commands(context):
        found = cli.sluicegate.get_command(context, name)
        assert found is not None
        assert found.name == name
        assert found.help, name
    assert cli.sluicegate.get_command(context, "nothing") is None


def test_help_loads_no_command() -> None:
    text = (
        "import sys; from sluicegate.cli import main; code = main(['--help'])\n"
        "heavy = [n for n in ('aiokafka', 'chdb', 'faust', 'onnxruntime', 'sluicegate.stack') if n in sys.modules]\n"
        "print(code, heavy)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "0 []"
    for name, (_, says) in cli.COMMANDS.items():
        assert name in done.stdout
        assert says in done.stdout


def test_the_script_and_the_module_give_the_same_code(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "sluicegate", "run", "enforcer"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set `SLUICEGATE_BOOTSTRAP`" in done.stderr
