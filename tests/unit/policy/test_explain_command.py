"""`sluicegate policy explain` as a user calls it."""

import json
from pathlib import Path

import pytest

from sluicegate import cli

REQUEST = """\
who: ana.support
via: helpdesk-app
at: 2026-11-20T21:00:00Z
request: {model: smollm2, purpose: ticket, messages: ["Is it late?"]}
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(Path(__file__).parents[3])


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["policy", "explain", *words]) == 0
    return capsys.readouterr().out


def test_a_file_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "request.yaml"
    path.write_text(REQUEST, encoding="utf-8")
    text = said(capsys, str(path))
    assert "DENIED at check 4" in text
    assert "no policy permits this" in text
    assert "support-answers-customers  access.cedar:3  permit" in text
    assert "allowed if you ask at 2026-11-21 07:00 UTC  (decided again: ALLOW by support-answers-customers " in text


def test_a_case_is_explained_by_name_or_by_enough_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "11:*")
    assert "IBAN leaves as last4 (rule iban; every-answer shape.cedar:4)" in text
    assert text == said(capsys, "11: finn for invoice: To which account must it be paid?")


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "3:*", "--format", "json"))
    assert found["verdict"] == "ALLOW"
    assert found["policies"][0]["place"] == "access.cedar:18"
    phone = next(each for each in found["ends"] if each["name"] == "tickets.phone")
    assert phone["nearest"][0]["steps"][0] == {"of": "directory", "text": 'put User::"eva.eng" into Role::"support"'}
    assert phone["nearest"][0]["admitted"] == ["tickets.phone", "tickets.text"]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("1*", "test cases of the bundle; name one; there are: "),
        ("support asks until 20:00", "neither a file nor a test case of the bundle; name one; there are: `support"),
    ],
)
def test_what_names_no_one_request_is_two(word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy", "explain", word]) == 2
    assert text in capsys.readouterr().err


def test_a_request_that_does_not_read_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "request.json"
    path.write_text('{"who": "ana.support"}', encoding="utf-8")
    assert cli.main(["policy", "explain", str(path)]) == 1
    assert "request.json:1: key `request` is missing; add it" in capsys.readouterr().err
