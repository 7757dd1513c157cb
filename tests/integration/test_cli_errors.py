"""What goes wrong at the command line is one line that says what to do, with an exit code, and nothing stays behind."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_stack import StackPlace, alive

REFUSED, WRONG = 1, 2


@pytest.fixture
def place(tmp_path: Path) -> Iterator[StackPlace]:
    found = StackPlace(tmp_path, SLUICEGATE_MODEL_SOURCE="nowhere.gguf")
    try:
        yield found
    finally:
        found.end()


def one_line(err: str) -> str:
    """The one line of an error, without the command's name; no trace of Python in it."""
    assert err.startswith("sluicegate: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert "Error" not in err
    return err.removeprefix("sluicegate: ").strip()


def ours(folder: Path) -> list[int]:
    """Processes that still work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                lies = (entry / "cwd").readlink()
            except OSError:
                continue
            if lies.is_relative_to(folder):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        (
            ("up",),
            {"SLUICEGATE_DISK_FREE_MB_MIN": "1000000"},
            ("MB left, 1000000 are needed", "free some, or set `SLUICEGATE_HOME`"),
        ),
        (("up",), {"SLUICEGATE_HOME": "policies"}, ("holds other things than a stack's data", "set `SLUICEGATE_HOME`")),
        (
            ("up",),
            {"SLUICEGATE_HOME": "policies/bundle.yaml/home"},
            ("cannot be the data directory (not a directory)", "set `SLUICEGATE_HOME` to another folder"),
        ),
        (
            ("up",),
            {"SLUICEGATE_REQUEST_BYTES_MX": "1"},
            ("`SLUICEGATE_REQUEST_BYTES_MX` is not a setting", "did you mean `SLUICEGATE_REQUEST_BYTES_MAX`?"),
        ),
        (("ask", "hello", "--as", "ian"), {"SLUICEGATE_GATE": "off"}, ("`SLUICEGATE_GATE` is not a setting",)),
        (("up",), {"SLUICEGATE_PARTITIONS": "0"}, ("`SLUICEGATE_PARTITIONS` is `0`", "greater than or equal to 1")),
        (("up", "--bundle", "nowhere"), {}, ("no bundle at `nowhere`", "name its folder with `--bundle`")),
        (("audit", "sql", "SELECT 1"), {}, ("there is no audit in", "start the stack with `sluicegate up`")),
        (("audit", "show", "demo-06"), {}, ("there is no audit in", "start the stack with `sluicegate up`")),
        (("publish", "--now"), {}, ("--now", "`sluicegate --help` shows how")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and len(value) == 1 else "",
)
def test_what_is_wrong_is_told_and_nothing_starts(
    place: StackPlace, words: tuple[str, ...], settings: dict[str, str], says: tuple[str, ...]
) -> None:
    code, out, err = place.type(*words, **settings)
    assert (code, out) == (WRONG, "")
    line = one_line(err)
    for text in says:
        assert text in line
    assert ours(place.folder) == []


def test_a_question_without_a_stack_is_told_how_to_start_one(place: StackPlace) -> None:
    code, out, err = place.type("ask", "hello", "--as", "ian")
    assert (code, out) == (REFUSED, "")
    assert one_line(err) == f"no stack runs in `{place.home.root}`: start it with `sluicegate up`"


def test_a_port_in_use_is_named(place: StackPlace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = place.type("up", SLUICEGATE_BROKER_PORT=str(port))
    assert code == WRONG
    assert one_line(err) == (
        f"port {port} on 127.0.0.1 is in use: stop what listens there, or set `SLUICEGATE_BROKER_PORT` (0: a free one)"
    )
    assert ours(place.folder) == []


def policy_line(text: str, part: str) -> int:
    """The line on which the policy that holds `part` begins: where its `@id` stands."""
    before = text[: text.index(part)].splitlines()
    return max(number for number, line in enumerate(before, start=1) if line.startswith("@id"))


@pytest.mark.parametrize(
    ("file", "part", "instead", "says"),
    [
        ("access.cedar", 'action == Action::"generate"', 'action == Action::"genrate"', "unrecognized action"),
        ("shape.cedar", "@numbers(", "@nmbers(", "annotation `@nmbers` is unknown"),
        ("shape.cedar", "@withheld(", '@ban("x") @withheld(', "OBLIGATION_UNSUPPORTED: `@ban`"),
        ("pay.cedar", "permit (principal in", "permit (principal among", "does not parse: unexpected token `among`"),
    ],
)
def test_a_bundle_that_does_not_validate_is_told_by_file_and_line(
    place: StackPlace, file: str, part: str, instead: str, says: str
) -> None:
    path = place.folder / "policies" / file
    text = path.read_text()
    path.write_text(text.replace(part, instead, 1))
    code, _, err = place.type("up")
    line = one_line(err)
    assert code == REFUSED
    assert says in line
    number = policy_line(text, part)
    # Cedar's parser names the very line, everything after it the policy's first.
    assert line.startswith((f"{file}:{number}: ", f"{file}:{number + 1}: "))
    assert not place.home.log_file("enforcer").exists()
    assert ours(place.folder) == []


def test_a_missing_model_is_told_with_the_way_to_get_it(place: StackPlace) -> None:
    code, _, err = place.type("up")
    assert code == REFUSED
    line = one_line(err)
    assert "there is no model at `nowhere.gguf`; run `make model`, or set `SLUICEGATE_MODEL_SOURCE`" in line
    assert ours(place.folder) == []


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO requests (epoch) VALUES (9)",
        "SELECT 1; DROP TABLE releases",
        "SELECT request_id FROM asks INTO OUTFILE 'here'",
    ],
)
def test_sql_that_does_more_than_read_is_refused(stack: StackPlace, query: str) -> None:
    """Invariant 9: over a running stack, with a question that is answered beside it."""
    code, out, err = stack.type("audit", "sql", query)
    assert (code, out) == (REFUSED, "")
    one_line(err)
    assert stack.sql("SELECT count() > 0 AS there FROM policy") == [{"there": 1}]
    assert not (stack.folder / "here").exists()


def test_a_request_that_nobody_made_is_told(stack: StackPlace) -> None:
    """A mistake of a person at a running stack."""
    code, out, err = stack.type("audit", "show", "nobody-asked-this")
    assert (code, out) == (REFUSED, "")
    assert "nobody-asked-this" in one_line(err)
    assert len(ours(stack.folder)) == 8, "the search for what is left behind finds a stack that runs"
