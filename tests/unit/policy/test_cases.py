"""A file of cases is read whole or refused with file, line and what to do."""

import json

import pytest
from policy_rules import asked_of

from sluicegate.policy.cases import read_cases, read_question
from sluicegate.schemas.errors import InvalidBundle, Problem
from sluicegate.schemas.ids import entity_uid

HEAD = "defaults: {via: app, at: 2026-11-20T09:00:00Z, model: m}\n"
CASE = "- {name: one, who: ana, request: {purpose: p, messages: [hello]}, expect: {verdict: deny}}\n"


def problems_of(text: str, path: str = "tests/x.yaml") -> list[str]:
    with pytest.raises(InvalidBundle) as caught:
        read_cases({path: text})
    assert all(isinstance(each, Problem) and each.code == "test-cases" for each in caught.value.problems)
    return [str(each) for each in caught.value.problems]


def test_a_case_is_read_with_the_defaults_of_its_file() -> None:
    (case,) = read_cases({"tests/x.yaml": HEAD + "cases:\n" + CASE})
    assert (case.name, case.place(), case.expected.verdict) == ("one", "tests/x.yaml:3", "deny")
    assert case.asked.principal == ("User", "ana")
    assert case.asked.actor == ("Service", "app")
    assert case.asked.time_ms == 1_795_165_200_000
    assert case.asked.request.model == "m"
    assert [(each.role, each.content) for each in case.asked.request.messages] == [("user", "hello")]


def test_a_service_asks_for_itself() -> None:
    asked = asked_of(
        '- {name: a, who: Service::"night", request: {purpose: p, messages: [x]}, expect: {verdict: deny}}'
    )
    assert asked.principal == asked.actor == ("Service", "night")


def test_entities_are_put_in_one_form() -> None:
    said = "{type: User, id: ana}, attrs: {b: 1, a: [2]}, parents: [{type: Role, id: r}]"
    rest = "request: {purpose: p, messages: [x]}, expect: {verdict: deny}"
    ((uid, text),) = asked_of(f"- {{name: a, who: ana, directory: [{{uid: {said}}}], {rest}}}").put
    assert uid == entity_uid("User", "ana")
    assert text == ('{"attrs":{"a":[2],"b":1},"parents":[{"id":"r","type":"Role"}],"uid":{"id":"ana","type":"User"}}')


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("who: ana, ", "", "tests/x.yaml:3: key `who` is missing; add it"),
        ("who: ana", "whom: ana, who: ana", "tests/x.yaml:3: unknown key `whom`; remove it"),
        ("verdict: deny", "verdict: no", "tests/x.yaml:3: `cases.0.expect.verdict`: input should be 'allow' or 'deny'"),
        ("who: ana", "who: 'User::ana\"'", "tests/x.yaml:3: `who` is no entity"),
        ("who: ana", "who: ana, at: noon", "tests/x.yaml:3: `at` is no time with a zone"),
        (
            "messages: [hello]",
            "messages: [hello], documents: [d]",
            "tests/x.yaml:3: `documents` of the file holds no `d`",
        ),
        ("- {name: one", "- {name: ''", "tests/x.yaml:3: `cases.0.name`: "),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, said: str) -> None:
    text = HEAD + "cases:\n" + CASE
    assert old in text
    (problem,) = problems_of(text.replace(old, new))
    assert problem.startswith(said)


def test_no_yaml_no_cases_and_names_taken_twice() -> None:
    assert problems_of("cases: [")[0].startswith("tests/x.yaml")
    assert problems_of("cases: []")[0].startswith("tests/x.yaml:1: `cases`: ")
    (problem,) = problems_of(HEAD + "cases:\n" + CASE + CASE)
    assert problem == "tests/x.yaml:4: the name `one` is taken by tests/x.yaml:3; give each case its own"


def test_the_problems_of_all_files_are_said_together() -> None:
    with pytest.raises(InvalidBundle) as caught:
        read_cases({"tests/a.yaml": "cases: []", "tests/b.yaml": "- 1"})
    assert len(caught.value.problems) == 2


def test_a_question_is_a_case_without_what_is_expected() -> None:
    said = "who: ana\nvia: app\nat: 2026-11-20T09:00:00Z\nrequest: {model: m, purpose: p, messages: [hello]}\n"
    (case,) = read_cases({"tests/x.yaml": HEAD + "cases:\n" + CASE})
    assert read_question("x", said).request.messages == case.asked.request.messages
    assert read_question("x", said + "name: n\nexpect: {verdict: allow}\n") == read_question("x", said)
    request = {"model": "m", "purpose": "p", "messages": ["hello"]}
    as_json = {"who": "ana", "via": "app", "at": "2026-11-20T09:00:00Z", "request": request}
    assert read_question("x", json.dumps(as_json)) == read_question("x", said)
    with pytest.raises(InvalidBundle, match="key `model` is missing"):
        read_question("x", said.replace("model: m, ", ""))
