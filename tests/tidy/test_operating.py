"""What `docs/operating.md` says of topics and settings is what the code says."""

import re
from pathlib import Path

from sluicegate.settings import PREFIX, Settings
from sluicegate.streams.topology import APPLICATION, PRODUCERS, PUBLISHER, REPLIES, STAGES, TABLE, Retention, Stamp

ROW = re.compile(
    r"^\| `<tenant>\.(?P<name>[a-z.<>]+)`[^|]*"
    r"\| (?P<writer>[^|]+) \| (?P<readers>[^|]+) \| (?P<stamp>\w+) \| (?P<kept>[^|]+) \|$",
    re.MULTILINE,
)
KEPT = {
    Retention.REQUEST: f"`{PREFIX}REQUEST_RETENTION_H`",
    Retention.REPLY: f"`{PREFIX}REPLY_RETENTION_H`",
    Retention.SHORT: "an hour",
    Retention.FOREVER: "for ever",
}


def test_the_table_of_topics_is_the_codes(repository: Path) -> None:
    text = (repository / "docs" / "operating.md").read_text(encoding="utf-8")
    shown = {found["name"]: found for found in ROW.finditer(text)}
    rows = {**{row.name: row for row in TABLE}, "replies.<name>": REPLIES}
    assert set(shown) == set(rows)
    for name, row in rows.items():
        writer = "every application" if row.writer == PRODUCERS else row.writer
        application = "its one application" if row is REPLIES else "every application"
        order = [PUBLISHER, *STAGES, APPLICATION]
        readers = [application if reader == APPLICATION else reader for reader in sorted(row.readers, key=order.index)]
        said = ", ".join(readers).replace(", ".join(STAGES), "every stage")
        stamp = "broker" if row.stamp is Stamp.BROKER else "writer"
        found = shown[name]
        assert (found["writer"], found["readers"], found["stamp"]) == (writer, said, stamp), name
        assert found["kept"] == KEPT[row.retention], name


def test_every_setting_it_names_exists(repository: Path) -> None:
    text = (repository / "docs" / "operating.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"\b{PREFIX}([A-Z0-9_]+)\b", text))
    assert named - {name.upper() for name in Settings.model_fields} == set()
    assert "SASL_PASSWORD_FILE" in named
