"""The report is read back by an XML parser and says what passed, what failed and where."""

from dataclasses import replace
from xml.etree.ElementTree import fromstring

from policy_rules import company_cases, company_rules

from sluicegate.policy.cases import Expected
from sluicegate.policy.junit import junit
from sluicegate.policy.trial import Outcome, run_case


def outcomes() -> list[Outcome]:
    good, bad, other = (company_cases()[0], company_cases()[1], company_cases()[-1])
    wrong = replace(bad, name="bad <&\x00> name", expected=Expected(verdict="deny", reason="a\x1bb"))
    return [run_case(case, company_rules()) for case in (good, wrong, other)]


def test_the_report_is_read_back() -> None:
    root = fromstring(junit("heron", outcomes()))
    assert root.tag == "testsuites"
    assert root.attrib == {"name": "heron", "tests": "3", "failures": "1", "errors": "0"}
    suites = list(root)
    assert [suite.attrib["tests"] for suite in suites] == ["2", "1"]
    assert [suite.attrib["failures"] for suite in suites] == ["1", "0"]
    first, second = list(suites[0])
    assert first.attrib["name"] == company_cases()[0].name
    assert (first.attrib["file"], first.attrib["line"]) == ("tests/engineering.yaml", str(company_cases()[0].line))
    assert list(first) == []
    (failure,) = list(second)
    assert failure.attrib["message"] == "otherwise than expected: verdict, reason"
    assert failure.text == "verdict:\n  - deny\n  + allow\nreason:\n  - a\ufffdb\n  + (absent)"


def test_what_xml_cannot_hold_is_marked() -> None:
    assert "bad &lt;&amp;\ufffd&gt; name" in junit("heron", outcomes()).decode()


def test_equal_outcomes_give_equal_bytes() -> None:
    assert junit("heron", outcomes()) == junit("heron", outcomes())
    assert fromstring(junit("heron", [])).attrib["tests"] == "0"
