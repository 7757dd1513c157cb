"""The audit questions of the demo, each a name, a text and the SQL that answers it; printed to users as they stand."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question in words and in SQL. `wants_none`: an answer with rows is bad news."""

    name: str
    text: str
    sql: str
    wants_none: bool = False


QUESTIONS: Final = (
    Question(
        name="who-asked",
        text="Who asked which model for what, by verdict",
        sql="""SELECT principal, model, purpose, verdict, count() AS requests
FROM asks
GROUP BY principal, model, purpose, verdict
ORDER BY principal, model, purpose, verdict""",
    ),
    Question(
        name="denied",
        text="What was denied, by the policy that did it",
        sql="""SELECT policy, code, check, denials, principals, reasons
FROM denials_by_policy
ORDER BY denials DESC, policy, code""",
    ),
    Question(
        name="salary",
        text="Every request about people.salary: was it admitted, by which policy, and who saw the answer",
        sql="""SELECT request_id, principal, use, policies, outcome, seen_by
FROM field_uses
WHERE field = 'people.salary'
ORDER BY use, request_id""",
    ),
    Question(
        name="rested-on",
        text="Which answers rested on people.salary, by which policies it was admitted, from which documents",
        sql="""SELECT request_id, principal, policies, documents, bytes, release_id
FROM prompt_materials
WHERE source = 'field:people.salary' AND outcome = 'RELEASED'
ORDER BY request_id""",
    ),
    Question(
        name="changed",
        text="What left redacted, withheld, aliased, clamped or unsupported, by class and role",
        sql="""SELECT kind, name, roles, sum(times) AS times, uniqExact(decision_id) AS requests
FROM changes
GROUP BY kind, name, roles
ORDER BY kind, name, roles""",
    ),
    Question(
        name="inferences-without-an-allow",
        text="Inferences without exactly one allow",
        sql="""SELECT epoch, partition, offset, generation_id, decision_id, allows
FROM inferences_without_one_allow
ORDER BY epoch, partition, offset""",
        wants_none=True,
    ),
)


def question(name: str) -> Question:
    """The question called `name`.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in QUESTIONS}[name]
