"""Batches of token ids go in line by line, how long optimum's `generate` took for each comes out.

Run as a program in the export environment, where torch is; the only place of the benches that needs it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sluicegate.model_runner.export import write_checkpoint
from sluicegate.model_runner.weights import open_source, read_weights


def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
    """Returns the seconds and the new tokens of one static batch, padded on the left, greedy, ends ignored."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    start = time.monotonic()
    made = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0
    )
    return time.monotonic() - start, made[:, longest:].tolist()


def main() -> int:
    """Exports the source, says `ready`, and answers until the input ends."""
    parser = argparse.ArgumentParser(prog="bench.optimum_peer")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    with open_source(options.source) as path:
        weights = read_weights(path)
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
        write_checkpoint(weights, Path(folder))
        del weights
        import onnxruntime
        from optimum.onnxruntime import ORTModelForCausalLM

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        model = ORTModelForCausalLM.from_pretrained(
            folder, export=True, provider="CPUExecutionProvider", session_options=settings
        )
    sys.stdout.write('"ready"\n')
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        seconds, tokens = generate(model, asked["prompts"], asked["new_tokens"])
        sys.stdout.write(json.dumps({"seconds": seconds, "tokens": tokens}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
