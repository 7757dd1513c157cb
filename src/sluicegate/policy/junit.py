"""The outcomes of test cases go in, a JUnit report comes out; the only place that writes one.

Source of the format: the XSD of Jenkins' xUnit plugin (junit-10), which CI systems read. A bundle's file of cases is a
suite, a case a test.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sluicegate.policy.trial import Outcome

# What XML 1.0 cannot hold, escaped or not.
_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, outcomes: Sequence[Outcome]) -> bytes:
    """The report as XML in UTF-8; `name` is the bundle's. No time is in it: equal outcomes give equal bytes."""
    root = Element("testsuites", _counts(name, outcomes))
    for file, group in groupby(outcomes, key=lambda each: each.case.file):
        members = list(group)
        suite = SubElement(root, "testsuite", _counts(f"{name}/{file}", members))
        for outcome in members:
            case = outcome.case
            attributes = {"name": case.name, "classname": f"{name}/{file}", "file": file, "line": str(case.line)}
            test = SubElement(suite, "testcase", {key: _clean(text) for key, text in attributes.items()})
            if not outcome.passed:
                places = ", ".join(each.place for each in outcome.differences)
                failure = SubElement(test, "failure", {"message": _clean(f"otherwise than expected: {places}")})
                failure.text = _clean("\n".join(line for each in outcome.differences for line in each.lines()))
    indent(root)
    report: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return report + b"\n"


def _counts(name: str, outcomes: Sequence[Outcome]) -> dict[str, str]:
    failed = sum(not each.passed for each in outcomes)
    return {"name": _clean(name), "tests": str(len(outcomes)), "failures": str(failed), "errors": "0"}


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
