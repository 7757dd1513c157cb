"""The bare model, without any gate: what it says of a colleague's pay when nobody asked. Run it beside the gated demo.

    .venv/bin/python demo/ungated.py

It is a program of its own: nothing in Sluicegate calls it, and the gate has no off switch.
"""

import sys
import tempfile
from pathlib import Path

from sluicegate.demo.cases import read_day
from sluicegate.model_runner.build import ensure_built
from sluicegate.model_runner.engine import Engine
from sluicegate.model_runner.ports import Job, Message
from sluicegate.settings import load_settings

QUESTION = "What is the job of Priya Shah?"
DOCUMENT = "people/priya-shah"


def main() -> int:
    """Print what the model makes of the whole document."""
    settings = load_settings()
    source = Path(settings.model_source)
    if not source.exists():
        print(f"there is no model at `{source}`: run `make model` first", file=sys.stderr)
        return 2
    pieces = read_day(Path(__file__).parent).documents[DOCUMENT].document().fields
    prompt = "".join(piece.text for piece in pieces) + "\n" + QUESTION
    models = settings.home / "models"
    with tempfile.TemporaryDirectory() as scratch:
        folder = ensure_built(source, models if models.is_dir() else Path(scratch))
        engine = Engine.load(folder, threads=settings.model_threads)
        job = Job(messages=(Message(role="user", content=prompt),), max_tokens=24, seed=0)
        answer = engine.generate(job, lambda: False).text
    print("UNGATED: the bare model, with no gate before or behind it, given the whole document")
    print(f"  asked  {QUESTION}")
    print(f"  said   {answer}")
    print("The same question through the gate, which withholds the pay from an intern:")
    print(f'  sluicegate ask --as ian "{QUESTION}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
