"""Messages go in as text and come out as token ids, and ids come back as bytes: the only place that knows tokens.

The vocabulary comes from the GGUF's own metadata (the conversion in transformers loses the digit split and changes
the end token). The role frame and the contents are encoded apart from each other and contents never become control
tokens, so a text that spells out a role stays text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from sluicegate.model_runner.errors import ModelRefused, TextRefused
from sluicegate.model_runner.ports import Message

TOKENIZER_FILE = "vocabulary.json"
CONTROL_TOKEN = 3
NORMAL_TOKEN = 1

_NEEDED = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.chat_template",
)
_FRAME = "<|im_start|>", "<|im_end|>"
# The one frame known here, with or without the default system prompt that some files open it with.
_CHATML = re.compile(
    r"\{% for message in messages %\}"
    r"(?:\{% if loop\.first and messages\[0\]\['role'\] != 'system' %\}\{\{ '<\|im_start\|>system\n"
    r"(?P<system>[^'<]*)<\|im_end\|>\n' \}\}\{% endif %\})?"
    r"\{\{'<\|im_start\|>' \+ message\['role'\] \+ '\n' \+ message\['content'\] \+ '<\|im_end\|>' \+ '\n'\}\}"
    r"\{% endfor %\}\{% if add_generation_prompt %\}\{\{ '<\|im_start\|>assistant\n' \}\}\{% endif %\}"
)


class Tokenizer:
    """A vocabulary with its ChatML frame; `digest` names the exact metadata that it was made from.

    Safe to use from several threads: nothing changes after construction.
    """

    def __init__(self, metadata: dict[str, Any]) -> None:
        """Make the tokenizer from the `tokenizer.*` keys of a GGUF.

        Raises:
            ModelRefused: a key is missing, or the vocabulary, its pre-tokenizer or its frame is not one known here.
        """
        for key in _NEEDED:
            if key not in metadata:
                raise ModelRefused(f"setting `{key}` is missing")
        kind, pre = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
        if (kind, pre) != ("gpt2", "smollm"):
            raise ModelRefused(f"tokenizer `{kind}` with pre-tokenizer `{pre}` is not supported, `gpt2`/`smollm` is")
        frame = _CHATML.fullmatch(metadata["tokenizer.chat_template"].strip())
        if frame is None:
            raise ModelRefused("setting `tokenizer.chat_template` is not the ChatML frame, which alone is supported")
        self._default_system: str | None = frame["system"]
        self.digest = hashlib.sha256(_serialize(metadata)).hexdigest()
        self._read_vocabulary(metadata)

    @classmethod
    def open(cls, model_dir: Path) -> Tokenizer:
        """Read the tokenizer of a built model.

        Raises:
            ModelRefused: the file is missing, damaged or holds what this code does not know.
        """
        path = model_dir / TOKENIZER_FILE
        try:
            metadata = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelRefused(f"`{path}` cannot be read, remove its folder and build the model again") from error
        if not isinstance(metadata, dict):
            raise ModelRefused(f"`{path}` is damaged, remove its folder and build the model again")
        return cls(metadata)

    def prompt_tokens(self, messages: Iterable[Message], default_system: bool = False) -> list[int]:
        """Return the ids of the ChatML prompt that ends where the assistant begins to speak.

        No begin-of-text token is added. The file's own default system prompt is added only when asked for and when
        `messages` does not begin with a system message.

        Raises:
            TextRefused: a content holds a byte that has no token.
            ModelRefused: a default system prompt was asked for and the file has none.
        """
        turns = list(messages)
        if default_system and (not turns or turns[0].role != "system"):
            if self._default_system is None:
                raise ModelRefused("the model has no default system prompt, give one as a message")
            turns.insert(0, Message(role="system", content=self._default_system))
        ids: list[int] = []
        for turn in turns:
            ids += [self._start, *self.encode(f"{turn.role}\n"), *self.encode(turn.content), self._end]
            ids += self.encode("\n")
        return [*ids, self._start, *self.encode("assistant\n")]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a plain text; control tokens spelled out in it stay ordinary text.

        Raises:
            TextRefused: the text holds a byte that has no token, or a lone surrogate (named by its first byte).
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise TextRefused(text[error.start].encode(errors="surrogatepass")[0]) from error
        missing = self.bytes_without_token.intersection(data)
        if missing:
            raise TextRefused(min(missing))
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the exact bytes that the ids stand for; control tokens stand for none."""
        return b"".join(self.token_bytes[token] for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; bytes that are no UTF-8 (a character cut in half) show as U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def _read_vocabulary(self, metadata: dict[str, Any]) -> None:
        tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
        if len(tokens) != len(types) or len(set(tokens)) != len(tokens):
            raise ModelRefused("the vocabulary names a token twice or has not one type a token")
        if unknown := set(types) - {CONTROL_TOKEN, NORMAL_TOKEN}:
            raise ModelRefused(f"token type `{min(unknown)}` is not supported")
        ids = {token: number for number, token in enumerate(tokens)}
        control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
        for token in _FRAME:
            if token not in control:
                raise ModelRefused(f"the vocabulary has no control token `{token}`")
        self._start, self._end = ids[_FRAME[0]], ids[_FRAME[1]]
        self.size = len(tokens)
        self.control_ids = frozenset(ids[token] for token in control)
        # `<|endoftext|>` ends a text too, although the file names only the end of a turn.
        ends = {int(metadata["tokenizer.ggml.eos_token_id"]), self._end, ids.get("<|endoftext|>", self._end)}
        self.end_ids = frozenset(ends)
        if not self.end_ids <= self.control_ids:
            raise ModelRefused("setting `tokenizer.ggml.eos_token_id` does not name a control token")
        unicode_of = _byte_characters()
        byte_of = {character: byte for byte, character in enumerate(unicode_of)}
        try:
            self.token_bytes: tuple[bytes, ...] = tuple(
                b"" if number in self.control_ids else bytes(byte_of[character] for character in token)
                for number, token in enumerate(tokens)
            )
        except KeyError as error:
            raise ModelRefused("a token holds a character that is not of the byte-level alphabet") from error
        self.bytes_without_token = frozenset(byte for byte in range(256) if unicode_of[byte] not in ids)
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
        for parts in merges:
            if len(parts) != 2 or not ids.keys() >= {*parts, "".join(parts)}:
                raise ModelRefused("setting `tokenizer.ggml.merges` does not fit the vocabulary")
        self._bpe: Any = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges))
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        self._bpe.decoder = tokenizers.decoders.ByteLevel()
        self._bpe.add_special_tokens(control)
        self._bpe.encode_special_tokens = True


def write_tokenizer(metadata: dict[str, Any], path: Path) -> None:
    """Write the metadata that `Tokenizer.open` reads back; the file's sha256 is the tokenizer's digest."""
    path.write_bytes(_serialize(metadata))


def _serialize(metadata: dict[str, Any]) -> bytes:
    return json.dumps({key: metadata[key] for key in _NEEDED}, sort_keys=True, ensure_ascii=False).encode()


def _byte_characters() -> list[str]:
    """Return the character that stands for each byte in a byte-level vocabulary (GPT-2, `bytes_to_unicode`)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters, shifted = [], 0
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(0x100 + shifted))
            shifted += 1
    return characters
