"""What tries to break the guarantee: random schemas, a vocabulary of awkward tokens, and models that want the worst."""

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel

# Tokens that reach over the borders of a grammar's parts, begin or end within a character, or repeat without end.
PIECES = [
    b'{"', b'"}', b'": ', b'": "', b'", "', b'", ', b'"]', b"[[", b"]]", b"}}", b"[{", b'[{"', b"}]", b", ", b'""',
    b"[]", b"{}", b"  ", b"        ", b"\t\t", b"\n", b"00", b"000", b"12", b"99999", b"-1", b"0.", b"e9", b"E+",
    b"1e", b"1e99", b"true", b"tru", b"alse", b"null", b"nul", b"name", b'"name', b'name"', b"value", b"item",
    b"id", b"abc", b"xyz", b"\\", b'\\"', b"\\\\", b"\\u", b"\\u00", b"\\ud83d", b"\\n", b"\\b", b"\xe2\x82",
    b"\x82\xac", b"\xf0\x9f", b"\x9f\x98", b"\xed\x9f", b"\xc3", b"\xa9", b"\xef\xbf", b"x\xe2\x82", b'"\xe2',
    b'\xac"', b"2024-", b"-01-", b"T00:", b"00Z", b"@", b".com", b"https://", b"aaaaaaaaaaaaaaaa", b"]}", b"},",
    b"},\n", b'"\n', b'",', b'":', b' "', b" [", b" {", b" 1", b" true",
]  # fmt: skip
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<tool>", "</tool>")


class PieceTokenizer(ByteTokenizer):
    """Single bytes, four control tokens and PIECES; it encodes greedily, the longest token first."""

    vocab_size = 256 + len(_SPECIAL) + len(PIECES)
    special_token_texts: Mapping[int, str] = MappingProxyType(dict(enumerate(_SPECIAL, 256)))

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        return [bytes([byte]) for byte in range(256)] + [b""] * len(_SPECIAL) + PIECES

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        data, token_ids = text.encode(), []
        ordered = sorted(PIECES, key=len, reverse=True)
        while data:
            piece = next((piece for piece in ordered if data.startswith(piece)), data[:1])
            token_ids.append(256 + len(_SPECIAL) + PIECES.index(piece) if piece in PIECES else piece[0])
            data = data[len(piece) :]
        return token_ids


def _taste(wanted: bytes, unwanted: bytes, tokenizer: ByteTokenizer) -> list[float]:
    """What is added to the logits: all that is unwanted is e^9 times less likely than what is wanted."""
    return [
        3.0 * any(byte in wanted for byte in data) - 6.0 * any(byte in unwanted for byte in data)
        for data in tokenizer.token_bytes
    ]


class AdversarialModel(RandomLogitsModel):
    """Random logits with a taste, which the first byte of a prompt chooses: see TASTES."""

    TASTES: Mapping[str, tuple[bytes, bytes]] = {
        "anything": (b"", b""),
        "nesting": (b'[{,:\\"', b"]}"),
        "endless text": (b" \t\nabcdefghij0123456789\\", b'"]},'),
        "rare characters": (bytes(range(0x80, 0x100)) + b"\\u\t", b'"]}'),
    }

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(PieceTokenizer.vocab_size, seed=seed, scale=0.7)
        self.tokenizer = PieceTokenizer()
        self._tastes = mx.array([_taste(*taste, self.tokenizer) for taste in self.TASTES.values()])

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        logits = super().__call__(inputs, cache)
        if cache is None or not isinstance(cache[0], PagedLayer):
            return logits
        chosen = [request.prompt_token_ids[0] % len(self.TASTES) for request in cache[0].current_batch.sampled]
        return logits + self._tastes[mx.array(chosen, dtype=mx.int32)][:, None]


def random_schema(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema that holds some value; what is asked of it is mostly what people ask."""
    kinds = ["string"] * 4 + ["integer", "number", "boolean", "null", "enum", "const"]
    kinds += ["object"] * 5 + ["array"] * 3 + ["anyOf", "allOf", "map", "any", "tuple", "oneOf"] if depth else []
    kind = rng.choice(kinds)
    if depth == 3:
        kind = rng.choice(["object", "object", "array", kind])
    return _MAKERS[kind](rng, depth)


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_NAMES, rng.randrange(1, 6))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
    }
    if rng.random() < 0.6:
        schema["additionalProperties"] = False
    return schema


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.choice([0, 0, 0, 1, 2])
    schema: dict[str, Any] = {"type": "array", "items": random_schema(rng, depth - 1), "minItems": least}
    if rng.random() < 0.4:
        schema["maxItems"] = least + rng.randrange(1, 4)
    return schema


def _string(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.choice([0, 0, 1, 5])
    return {
        "type": "string",
        **rng.choice(
            [
                {},
                {},
                {"minLength": least},
                {"maxLength": least + rng.choice([1, 3, 40])},
                {"minLength": least, "maxLength": least + 4},
                {"pattern": rng.choice(["^[a-z]{2,5}$", "^(foo|bar)+$", r"^\d{4}-\d{2}$", "x.y", "^[^\\\\]{0,3}é?$"])},
                {"format": rng.choice(["date-time", "date", "uuid", "email", "ipv4", "time"])},
            ]
        ),
    }


def _number(rng: random.Random, kind: str) -> dict[str, Any]:
    low = rng.choice([-1000, -3, 0, 1, 17])
    bounds: list[dict[str, Any]] = [
        {},
        {},
        {"minimum": low},
        {"exclusiveMinimum": low, "maximum": low + rng.choice([1, 5, 1000])},
        {"maximum": low},
    ]
    return {"type": kind, **rng.choice(bounds)}


def _tuple(rng: random.Random, depth: int) -> dict[str, Any]:
    items = [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": rng.randrange(len(items) + 1)}


def _tagged(rng: random.Random, depth: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": random_schema(rng, depth - 1)},
            "required": ["kind", "value"],
            "additionalProperties": False,
        }
        for kind in rng.sample(["a", "b", "long kind", 'quote"d', "é"], 2)
    ]


_NAMES = ["name", "id", "value", "items", "a b", "é", 'quo"te', "x\\y", "count", "n", "children", "address", "date"]
_VALUES = ["a", "", "two words", 'q"', "é€😀", 0, -7, 2.5, 1e21, True, None, [], [1, "x"], {"k": [None]}]
_MAKERS: dict[str, Any] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "tuple": _tuple,
    "integer": lambda rng, depth: _number(rng, "integer"),
    "number": lambda rng, depth: _number(rng, "number"),
    "boolean": lambda rng, depth: {"type": "boolean"},
    "null": lambda rng, depth: {"type": rng.choice(["null", ["null", "integer"], ["string", "null", "boolean"]])},
    "enum": lambda rng, depth: {"enum": rng.sample(_VALUES, rng.randrange(1, 5))},
    "const": lambda rng, depth: {"const": rng.choice(_VALUES)},
    "any": lambda rng, depth: {},
    "anyOf": lambda rng, depth: {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]},
    "oneOf": lambda rng, depth: {"oneOf": _tagged(rng, depth)},
    "allOf": lambda rng, depth: {"allOf": [{"type": "integer"}, _number(rng, "number")]},
    "map": lambda rng, depth: {"type": "object", "additionalProperties": random_schema(rng, depth - 1)},
}

RECURSIVE: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name", "children"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "list": {
                "anyOf": [
                    {"type": "null"},
                    {
                        "type": "object",
                        "properties": {"head": {"type": "integer"}, "tail": {"$ref": "#/$defs/list"}},
                        "required": ["head", "tail"],
                        "additionalProperties": False,
                    },
                ]
            }
        },
        "$ref": "#/$defs/list",
    },
    {
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "minItems": 0, "maxItems": 2}},
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}},
        "required": ["left"],
    },
    {"type": "object"},
    {},
]


def schemas(count: int) -> list[dict[str, Any]]:
    """Recursive ones, and so many random ones."""
    return RECURSIVE + [random_schema(random.Random(seed)) for seed in range(count)]
