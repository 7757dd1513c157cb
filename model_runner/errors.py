"""What the model runner refuses, as exceptions split by what the caller must do.

ModelRunnerError
  |- ModelRefused     this model, or this build of it, cannot be served: stop the start-up and name the cause
  |- ProviderRefused  the runtime is not what was asked for: stop the start-up, never fall back
  |- TextRefused      this text cannot become tokens unchanged: deny the request
  `- ModelFailed      the runtime failed inside a call: stop the worker, commit nothing
"""

from __future__ import annotations


class ModelRunnerError(Exception):
    """Anything that the model runner refuses by name."""


class ModelRefused(ModelRunnerError):
    """A source, tensor, setting or built graph that is not exactly what this code knows how to serve."""


class ProviderRefused(ModelRunnerError):
    """The execution provider asked for is not there, or two runtimes are installed over each other."""


class TextRefused(ModelRunnerError):
    """A text holds a byte that the vocabulary has no token for; it would vanish silently.

    The text itself is never part of the message: only the byte is.
    """

    def __init__(self, byte: int) -> None:
        super().__init__(f"byte `0x{byte:02x}` has no token and would vanish, remove it from the text")
        self.byte = byte


class ModelFailed(ModelRunnerError):
    """The runtime raised during a model call. Its own message may name token ids, so it is not carried along."""
