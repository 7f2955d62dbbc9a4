"""Every error the package raises for a caller to catch.

MLXAgentError
├── RequestError (ValueError)            a request that cannot be served as it was asked
│   ├── ContextLengthError               the prompt does not fit the context
│   ├── ConstraintError                  a constraint that is malformed or contradicts itself
│   ├── UnsupportedSchemaError           a JSON Schema keyword that cannot be enforced exactly
│   └── ToolChoiceError                  a tool, or a choice of tools, that makes no sense
├── CapacityError                        the request is larger than the whole KV pool, or the model than the device
│   └── QueueFullError                   too many requests wait: the same one may succeed later
├── RequestTimeout (TimeoutError)        the request's own timeout passed
├── GenerationError                      a fault inside the engine while the request ran
│   └── InvalidOutputError               a value that was only checked against its schema, and is not valid
├── EngineClosedError                    the engine is closed
├── KVTierError                          the folder for KV on disk cannot be used
├── ForkedProcessError (RuntimeError)    the engine belongs to the process that this one was forked from
└── ModelLoadError                       the model cannot be read
    └── UnsupportedModelError            it can be read, but its kind is not supported
"""

from __future__ import annotations


class MLXAgentError(Exception):
    """The base of every error of this package."""


class RequestError(MLXAgentError, ValueError):
    """A request that cannot be served as it was asked; raised before anything is computed."""


class ContextLengthError(RequestError):
    """The prompt, with room for one new token, does not fit the context."""


class ConstraintError(RequestError):
    """A constraint that is malformed or that nothing can satisfy."""


class UnsupportedSchemaError(RequestError):
    """A JSON Schema keyword that cannot be enforced exactly.

    `pointer` is the JSON pointer of the subschema, `keyword` the keyword, `reason` why it is refused.
    """

    def __init__(self, pointer: str, keyword: str, reason: str) -> None:
        super().__init__(f"schema{pointer or ' root'}: {keyword!r} cannot be enforced exactly: {reason}")
        self.pointer = pointer
        self.keyword = keyword
        self.reason = reason


class ToolChoiceError(RequestError):
    """A tool definition or a tool_choice that cannot be honoured."""


class CapacityError(MLXAgentError):
    """The request alone is larger than the KV pool, the queue is full, or the model is larger than the memory."""


class QueueFullError(CapacityError):
    """Too many requests wait already; the same request may succeed later."""


class RequestTimeout(MLXAgentError, TimeoutError):
    """The request's own timeout passed before it finished."""


class GenerationError(MLXAgentError):
    """A fault inside the engine while the request ran; `__cause__` is the fault."""


class InvalidOutputError(GenerationError):
    """The output breaks a keyword that JSONSchema(strict=False) only checks; `text` is that of the last attempt."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(problem, text)
        self.text = text

    def __str__(self) -> str:
        return str(self.args[0])


class EngineClosedError(MLXAgentError):
    """The engine is closed, or was closed before the request finished."""


class KVTierError(MLXAgentError):
    """The folder that kv_tier names cannot be used: no folder, not writable, too small, or of a newer version."""


class ForkedProcessError(MLXAgentError, RuntimeError):
    """The engine belongs to the process that this one was forked from, and only works there."""


class ModelLoadError(MLXAgentError):
    """The model cannot be read: unknown name, missing file, corrupt or truncated data."""


class UnsupportedModelError(ModelLoadError):
    """The model can be read, but its architecture, quantization or tokenizer is not supported."""
