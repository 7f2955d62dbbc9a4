"""The three tools of the demo: real functions, whose operands are checked by their schemas and by themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from langchain_core.tools import BaseTool, tool
from pydantic import Field

Number = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
Operator = Literal["+", "-", "*", "/"]
Unit = Literal["kilometers", "miles", "kilograms", "pounds", "celsius", "fahrenheit", "liters", "gallons"]
Planet = Literal["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
Fact = Literal["moons", "diameter", "day", "year"]

# Diameter in kilometers, the solar day in hours, the year in Earth days; figures of NASA's planetary fact sheet.
_UNITS = {"moons": "", "diameter": " km", "day": " hours", "year": " days"}
PLANETS: dict[str, dict[str, float]] = {
    "Mercury": {"moons": 0, "diameter": 4879, "day": 4222.6, "year": 88.0},
    "Venus": {"moons": 0, "diameter": 12104, "day": 2802.0, "year": 224.7},
    "Earth": {"moons": 1, "diameter": 12756, "day": 24.0, "year": 365.2},
    "Mars": {"moons": 2, "diameter": 6792, "day": 24.7, "year": 687.0},
    "Jupiter": {"moons": 95, "diameter": 142984, "day": 9.9, "year": 4331.0},
    "Saturn": {"moons": 146, "diameter": 120536, "day": 10.7, "year": 10747.0},
    "Uranus": {"moons": 28, "diameter": 51118, "day": 17.2, "year": 30589.0},
    "Neptune": {"moons": 16, "diameter": 49528, "day": 16.1, "year": 59800.0},
}
_TO_BASE: dict[str, tuple[str, float, float]] = {  # unit: (kind, factor, offset) to meters, grams, kelvin, milliliters
    "kilometers": ("length", 1000.0, 0.0),
    "miles": ("length", 1609.344, 0.0),
    "kilograms": ("mass", 1000.0, 0.0),
    "pounds": ("mass", 453.59237, 0.0),
    "celsius": ("temperature", 1.0, 273.15),
    "fahrenheit": ("temperature", 5 / 9, 273.15 - 32 * 5 / 9),
    "liters": ("volume", 1000.0, 0.0),
    "gallons": ("volume", 3785.411784, 0.0),
}


@tool
def calculator(a: Number, operator: Operator, b: Number) -> str:
    """Add, subtract, multiply or divide two numbers."""
    if operator == "/":
        return _shown(a / b) if b else "error: b must not be 0"
    return _shown({"+": a + b, "-": a - b, "*": a * b}[operator])


@tool
def unit_converter(value: Number, from_unit: Unit, to_unit: Unit) -> str:
    """Convert a value to another unit."""
    kind, factor, offset = _TO_BASE[from_unit]
    other_kind, other_factor, other_offset = _TO_BASE[to_unit]
    if kind != other_kind:
        return f"error: {from_unit} measures {kind}, {to_unit} measures {other_kind}"
    return f"{_shown((value * factor + offset - other_offset) / other_factor)} {to_unit}"


@tool
def planet_facts(planet: Planet, fact: Fact) -> str:
    """Look up a fact about a planet."""
    return _shown(PLANETS[planet][fact]) + _UNITS[fact]


TOOLS: dict[str, BaseTool] = {tool.name: tool for tool in (calculator, unit_converter, planet_facts)}


def _shown(value: float) -> str:
    """At most two decimals, and none that are zero."""
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".")
