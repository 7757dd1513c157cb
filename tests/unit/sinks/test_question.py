"""The second door: only nodes, functions and tables on the lists."""

import pytest

from sluicegate.sinks.clickhouse import QuestionRefused
from sluicegate.sinks.functions import AGGREGATES, FUNCTIONS, is_allowed
from sluicegate.sinks.question import TREE_LINES_MAX, check_tree

PLAIN = """SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    Function count (alias n) (children 1)
     ExpressionList
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      TableIdentifier sluicegate.asks (alias a)
"""


def test_a_plain_select_passes() -> None:
    check_tree(PLAIN)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Function count", "Function file", "`file` is not on the list"),
        ("Function count", "Function numbers", "`numbers` is not on the list"),
        ("TableIdentifier sluicegate.asks", "TableIdentifier system.users", "no table of the audit"),
        ("TableIdentifier sluicegate.asks", "TableIdentifier a b", "no table of the audit"),
        ("TableIdentifier sluicegate.asks (alias a)", "Function file (children 1)", "reads from outside"),
        ("TableIdentifier sluicegate.asks (alias a)", "Function count (children 1)", "reads from outside"),
        ("     ExpressionList\n", "     Identifier SYSTEM.one\n", "no table of the audit"),
        ("     ExpressionList\n", "     Set\n", "`Set` is not part"),
        ("     ExpressionList\n", "     ColumnsApplyTransformer\n", "not part"),
        ("     ExpressionList\n", "     QueryParameter a:String\n", "not part"),
        ("     ExpressionList\n", "     Literal 'a\n b'\n", "not part"),
        ("SelectWithUnionQuery", "InsertQuery", "not part"),
        ("SelectWithUnionQuery", "ExpressionList", "send a SELECT"),
        ("Function count (alias n)", "Function count (alias n)\n    Function file (children 1)", "not on the list"),
    ],
)
def test_what_is_on_no_list_is_refused(old: str, new: str, why: str) -> None:
    assert PLAIN.count(old) == 1
    with pytest.raises(QuestionRefused, match=why):
        check_tree(PLAIN.replace(old, new))


def test_a_tree_that_the_session_might_have_cut_is_refused() -> None:
    with pytest.raises(QuestionRefused, match="too long"):
        check_tree(PLAIN + "     Literal 1\n" * TREE_LINES_MAX)


@pytest.mark.parametrize(
    "name", ["count", "COUNT", "countIf", "sumIfArray", "uniqExactOrNull", "dateName", "quantileExactIf"]
)
def test_functions_on_the_list_pass_with_their_combinators(name: str) -> None:
    assert is_allowed(name)


@pytest.mark.parametrize(
    "name",
    ["file", "url", "fileIf", "upperIf", "sleep", "sleepEachRow", "getSetting", "dictGet", "joinGet", "hostName",
     "currentUser", "catboostEvaluate", "addressToLine", "", "if ", "executable", "throwIf", "formatRow"],
)  # fmt: skip
def test_everything_else_is_refused(name: str) -> None:
    assert not is_allowed(name)


def test_nothing_on_the_list_reads_files_hosts_or_other_tables() -> None:
    reading = (
        "file",
        "url",
        "dict",
        "join",
        "remote",
        "cluster",
        "settings",
        "user",
        "host",
        "server",
        "sleep",
        "introspect",
    )
    assert [name for name in sorted(FUNCTIONS) if name.startswith(reading) or name.startswith("get")] == []
    assert AGGREGATES < FUNCTIONS
