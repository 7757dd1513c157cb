"""Every unit test of the client gets a house of its own and does not wait between sends."""

import pytest
from client_house import House

from sluicegate.client import client as client_module


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE_S", 0.001)
    monkeypatch.setattr(client_module, "PAUSE_S_MAX", 0.002)


@pytest.fixture
def house() -> House:
    return House()
