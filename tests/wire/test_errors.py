"""Errors of an engine are raised again where a server told of them."""

import json

import pytest

from mlx_agent_llm import errors
from mlx_agent_llm.errors import InvalidOutputError, MLXAgentError, UnsupportedSchemaError
from mlx_agent_llm.wire import error_of_json, json_of_error

SPECIAL = {
    UnsupportedSchemaError: UnsupportedSchemaError("/a", "not", "because"),
    InvalidOutputError: InvalidOutputError("a problem", "the text"),
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MLXAgentError)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not MLXAgentError])
def test_an_error_comes_back_with_its_class_message_and_fields(kind: type[MLXAgentError]) -> None:
    error = SPECIAL.get(kind) or kind("what is wrong")  # type: ignore[call-overload]
    back = error_of_json(json.loads(json.dumps(json_of_error(error))), 500)
    assert (type(back), str(back), vars(back)) == (kind, str(error), vars(error))


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (401, {"message": "a wrong API key"}, errors.RequestError),
        (404, {"message": "unknown", "code": "model_not_found"}, errors.ModelLoadError),
        (429, {"message": "too many"}, errors.QueueFullError),
        (503, {"message": "shutting down"}, errors.EngineClosedError),
        (502, {}, errors.GenerationError),
        (400, {"kind": "SystemExit", "message": "no error of ours"}, errors.RequestError),
    ],
)
def test_what_no_engine_said_has_the_class_of_its_status(status: int, told: dict[str, str], kind: type) -> None:
    error = error_of_json(told, status)
    assert type(error) is kind and (told.get("message") or str(status)) in str(error)
