"""What every agent of the demo is told, the same for all of them, and the questions: the only prepared part.

A small model learns from examples what a call looks like, which tool is for what, and what an answer says: two for each
tool. What the agents then say and call is the model's own.
"""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from mlx_agent_llm.cli.demo.tools import TOOLS

SYSTEM = "Answer each question with a tool. When its result is there, say the result in one sentence."

# The demo model gets these right with every seed that was tried (tests/cli/test_demo.py). Of sums it takes many for
# miles, so that nobody is asked for one.
TASKS = (
    "How many liters are 3 gallons?",
    "How many moons does Jupiter have?",
    "How many pounds are 8 kilograms?",
    "What is the diameter of Saturn?",
    "Convert 5 gallons to liters.",
    "What is the diameter of Mercury?",
    "How many moons does Neptune have?",
)


def shared_messages() -> list[BaseMessage]:
    """The system prompt and the worked examples."""
    return [
        SystemMessage(SYSTEM),
        *_example("What is 7 times 6?", "calculator", {"a": 7, "operator": "*", "b": 6}, "7 times 6 is {}."),
        *_example("What is 40 minus 15?", "calculator", {"a": 40, "operator": "-", "b": 15}, "40 minus 15 is {}."),
        *_example(
            "Convert 10 miles to kilometers.",
            "unit_converter",
            {"value": 10, "from_unit": "miles", "to_unit": "kilometers"},
            "10 miles are {}.",
        ),
        *_example(
            "How many fahrenheit are 20 celsius?",
            "unit_converter",
            {"value": 20, "from_unit": "celsius", "to_unit": "fahrenheit"},
            "20 celsius are {}.",
        ),
        *_example(
            "How many moons does Mars have?", "planet_facts", {"planet": "Mars", "fact": "moons"}, "Mars has {} moons."
        ),
        *_example(
            "What is the diameter of Venus?",
            "planet_facts",
            {"planet": "Venus", "fact": "diameter"},
            "The diameter of Venus is {}.",
        ),
    ]


def _example(question: str, name: str, arguments: dict[str, object], answer: str) -> list[BaseMessage]:
    call_id, result = f"example {question}", TOOLS[name].invoke(arguments)
    return [
        HumanMessage(question),
        AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": call_id, "type": "tool_call"}]),
        ToolMessage(result, tool_call_id=call_id),
        AIMessage(answer.format(result)),
    ]
