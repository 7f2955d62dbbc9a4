"""Made-up letters, with what stands in each: an extraction whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from mlx_agent_llm.evaluate.case import Case, Reply, Verdict

CATEGORY = "letters, by field"
NUM_LETTERS = 100
_TEXT = {"type": "string", "maxLength": 40}
_FIELDS: dict[str, Any] = {
    "invoice_number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    "customer_name": _TEXT,
    "town": _TEXT,
    "country": {"enum": ["France", "Germany", "Italy", "Spain"]},
    "item": _TEXT,
    "quantity": {"type": "integer", "minimum": 0, "maximum": 999},
    "unit_price": {"type": "integer", "minimum": 0, "maximum": 99999},
    "currency": {"enum": ["EUR", "USD", "GBP"]},
    "is_paid": {"type": "boolean"},
}
SCHEMA = {"type": "object", "properties": _FIELDS, "required": list(_FIELDS), "additionalProperties": False}
_TOWNS = {"Lyon": "France", "Bremen": "Germany", "Turin": "Italy", "Bilbao": "Spain"}


def letter_cases() -> list[Case]:
    """All letters, the same at every run."""
    return [_case(number) for number in range(NUM_LETTERS)]


def _case(seed: int) -> Case:
    truth = _truth(random.Random(seed))
    question = f"Read the letter, and answer with one JSON object of what is asked for.\n\n{_letter(truth)}"
    messages = [{"role": "user", "content": question}]
    return Case(CATEGORY, f"letter_{seed}", messages, partial(_judge, truth), schema=SCHEMA)


def _truth(rng: random.Random) -> dict[str, Any]:
    town = rng.choice(list(_TOWNS))
    return {
        "invoice_number": f"{rng.choice(['AB', 'KX', 'QT'])}-{rng.randrange(1000, 10000)}",
        "customer_name": f"{rng.choice(['Ada', 'Bruno', 'Chloe', 'Dario', 'Elsa'])} {rng.choice(['Moreau', 'Weber'])}",
        "town": town,
        "country": _TOWNS[town],
        "item": rng.choice(["garden chairs", "desk lamps", "coffee mills", "notebooks"]),
        "quantity": rng.randrange(2, 60),
        "unit_price": rng.randrange(3, 400),
        "currency": rng.choice(["EUR", "USD", "GBP"]),
        "is_paid": rng.random() < 0.5,
    }


def _letter(truth: Mapping[str, Any]) -> str:
    paid = "has been paid" if truth["is_paid"] else "has not been paid yet"
    return (
        f"Dear {truth['customer_name']}, we sent {truth['quantity']} {truth['item']} to your address in "
        f"{truth['town']}, {truth['country']}, at {truth['unit_price']} {truth['currency']} each. Invoice "
        f"{truth['invoice_number']} {paid}."
    )


def _judge(truth: Mapping[str, Any], reply: Reply) -> Verdict:
    """A reply that is not valid has no field that could be trusted."""
    value = reply.value
    right = 0 if value is None else sum(value[name] == one for name, one in truth.items())
    return Verdict(value is not None, right, len(truth))
