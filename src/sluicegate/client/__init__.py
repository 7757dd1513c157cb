"""The client of a producing service: `async with Client(config) as client: answer = await client.ask(...)`."""

from sluicegate.client.answer import Answer, NotReleased
from sluicegate.client.calls import Submitted
from sluicegate.client.client import Client
from sluicegate.client.config import BROKER_ACL, ClientConfig
from sluicegate.client.errors import NotAnswered, TooManyWaiting
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import Clamp, Document, FieldText, Message, Parameters, Role
from sluicegate.streams.fetch import Security

__all__ = [
    "BROKER_ACL",
    "Answer",
    "Clamp",
    "Client",
    "ClientConfig",
    "Code",
    "Document",
    "FieldText",
    "Message",
    "NotAnswered",
    "NotReleased",
    "Parameters",
    "ReleaseOutcome",
    "Role",
    "Security",
    "Submitted",
    "TooManyWaiting",
]
