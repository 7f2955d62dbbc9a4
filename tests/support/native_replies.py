"""Replies as the models of a family write them, by the families' public descriptions of their formats.

Each family is described by hand as how it writes one call and what stands between calls; nothing here asks the package.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

Arguments = dict[str, Any]


class Family(NamedTuple):
    """How a family writes a call; its template; what stands around calls, between them, around reasoning and text."""

    template: str
    call: Callable[[str, Arguments, int], str]
    begin: str = ""
    between: str = ""
    end: str = ""
    before_calls: str = "\n"
    think: tuple[str, str] | None = None
    takes_text: bool = True
    most: int = 2
    text: tuple[str, str] = ("", "")


class NativeReply(NamedTuple):
    """A reply, and what it says; thinking: whether the prompt has opened its reasoning."""

    family: str
    kind: str
    text: str
    calls: list[tuple[str, Arguments]]
    content: str = ""
    reasoning: str = ""


def compact(value: Any) -> str:
    """JSON with the blanks that templates write, and without escapes."""
    return json.dumps(value, ensure_ascii=False)


def hermes(name: str, arguments: Arguments, index: int) -> str:
    """`<tool_call>` around JSON, each on lines of its own."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {compact(arguments)}}}\n</tool_call>'


def entry(name: str, arguments: Arguments, index: int) -> str:
    """An object of a JSON list."""
    return f'{{"name": "{name}", "arguments": {compact(arguments)}}}'


def entry_with_id(name: str, arguments: Arguments, index: int) -> str:
    """An object of a JSON list, with an id."""
    return f'{{"name": "{name}", "arguments": {compact(arguments)}, "id": "abcdefg0{index}"}}'


def plain(value: Any) -> str:
    """A text as it is, everything else as JSON."""
    return value if isinstance(value, str) else compact(value)


def coder(name: str, arguments: Arguments, index: int) -> str:
    """Qwen3-Coder's tags, each value on a line of its own."""
    inner = "".join(f"<parameter={key}>\n{plain(value)}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def seed(name: str, arguments: Arguments, index: int) -> str:
    """Seed-OSS's tags."""
    inner = "".join(f"<parameter={key}>{plain(value)}</parameter>\n" for key, value in arguments.items())
    return f"<seed:tool_call>\n<function={name}>\n{inner}</function>\n</seed:tool_call>"


def glm(line: str) -> Callable[[str, Arguments, int], str]:
    """GLM's keys and values, with a line break between them or none."""

    def write(name: str, arguments: Arguments, index: int) -> str:
        inner = "".join(
            f"<arg_key>{key}</arg_key>{line}<arg_value>{plain(value)}</arg_value>{line}"
            for key, value in arguments.items()
        )
        return f"<tool_call>{name}{line}{inner}</tool_call>"

    return write


def ling(name: str, arguments: Arguments, index: int) -> str:
    """Ling's keys and values: a line break after each key."""
    inner = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{plain(value)}</arg_value>" for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{inner}\n</tool_call>"


def hunyuan(name: str, arguments: Arguments, index: int) -> str:
    """Hunyuan's keys and values."""
    inner = "".join(
        f"<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>{plain(value)}</arg_value:opensource>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call:opensource>{name}<tool_sep:opensource>\n{inner}</tool_call:opensource>"


def invoke(name: str, arguments: Arguments, index: int) -> str:
    """MiniMax M2's invoke."""
    inner = "".join(f'<parameter name="{key}">{plain(value)}</parameter>\n' for key, value in arguments.items())
    return f'<invoke name="{name}">\n{inner}</invoke>'


def muse(name: str, arguments: Arguments, index: int) -> str:
    """Muse Glimmer's message to a tool."""
    inner = "".join(
        f'<atem:parameter name="{key}">{plain(value)}</atem:parameter>\n' for key, value in arguments.items()
    )
    block = f'<atem:function_calls>\n<atem:invoke name="{name}">\n{inner}</atem:invoke>\n</atem:function_calls>'
    return f" to={name}<|message|>{block}"


M3 = "]<]minimax[>["


def elements(value: Any) -> str:
    """MiniMax M3's tags within tags."""
    if isinstance(value, dict):
        return "".join(f"{M3}<{key}>{elements(item)}{M3}</{key}>" for key, item in value.items())
    if isinstance(value, list):
        return "".join(f"{M3}<item>{elements(item)}{M3}</item>" for item in value)
    return plain(value)


def dsml(name: str, arguments: Arguments, index: int) -> str:
    """DeepSeek's markup: each parameter says whether it is a text."""
    inner = "".join(
        f'<｜DSML｜parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">{plain(value)}'
        "</｜DSML｜parameter>\n"
        for key, value in arguments.items()
    )
    return f'<｜DSML｜invoke name="{name}">\n{inner}</｜DSML｜invoke>'


def minicpm(name: str, arguments: Arguments, index: int) -> str:
    """MiniCPM's functions and params."""
    inner = "".join(f'<param name="{key}">{plain(value)}</param>' for key, value in arguments.items())
    return f'<function name="{name}">{inner}</function>'


def kimi_k3(name: str, arguments: Arguments, index: int) -> str:
    """Kimi K3's arguments with their types."""
    kinds = {str: "string", int: "number", bool: "boolean", list: "array", dict: "object"}
    inner = "".join(
        f'<|open|>argument key="{key}" type="{kinds[type(value)]}"<|sep|>{plain(value)}<|close|>argument<|sep|>'
        for key, value in arguments.items()
    )
    return f'<|open|>call tool="{name}" index="{index + 1}"<|sep|>{inner}<|close|>call<|sep|>'


def gemma(value: Any) -> str:
    """Gemma's values: sorted keys without quotes, texts between marks."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{gemma(value[key])}" for key in sorted(value, key=str.lower)) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(gemma, value))}]"
    return f'<|"|>{value}<|"|>' if isinstance(value, str) else compact(value)


def python_call(name: str, arguments: Arguments, index: int) -> str:
    """Keyword arguments of Python."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


THINK = ("<think>\n", "\n</think>\n\n")
FAMILIES = {
    "qwen2.5": Family("Qwen-Qwen2.5-7B-Instruct", hermes, between="\n"),
    "qwen3": Family("Qwen-Qwen3-0.6B", hermes, between="\n", think=THINK),
    "qwen3-coder": Family("Qwen3-Coder", coder, between="\n"),
    "qwen3.5": Family("Qwen3.5-4B", coder, between="\n", think=THINK, before_calls="\n\n"),
    "hermes 3": Family("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", hermes, between="\n"),
    "granite 4": Family("ibm-granite-granite-4.0", hermes, between="\n"),
    "granite 3.3": Family("ibm-granite-granite-3.3-2B-Instruct", entry, "<|tool_call|>[", ", ", "]", before_calls=""),
    "seed-oss": Family("ByteDance-Seed-OSS", seed, between="\n", think=("<seed:think>", "</seed:think>\n")),
    "step 3.5": Family("StepFun3.5-Flash", coder, think=THINK),
    "nemotron 3": Family("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", coder, between="\n", end="\n", think=THINK),
    "nemotron nano 2": Family("NVIDIA-Nemotron-Nano-v2", entry, "<TOOLCALL>[", ", ", "]</TOOLCALL>", think=THINK),
    "glm 4.6": Family("GLM-4.6", glm("\n"), between="\n", think=("\n<think>", "</think>\n")),
    "glm 4.7": Family("GLM-4.7-Flash", glm(""), before_calls="", think=("<think>", "</think>")),
    "ling": Family("inclusionai-ling-3.0-flash", ling, between="\n", think=("<think>", "</think>")),
    "laguna": Family("poolside-Laguna-XS.2", glm("\n"), between="\n", end="\n", think=THINK),
    "spark": Family("Spark2.5", glm(""), before_calls="", think=("<think>", "</think>")),
    "hunyuan": Family(
        "tencent-Hy3",
        hunyuan,
        "<tool_calls:opensource>\n",
        "\n",
        "\n</tool_calls:opensource>",
        think=("<think:opensource>", "</think:opensource>"),
    ),
    "minimax m1": Family("MiniMax-M1", entry, "<tool_calls>\n", "\n", "\n</tool_calls>"),
    "minimax m2": Family("MiniMax-M2", invoke, "<minimax:tool_call>\n", "\n", "\n</minimax:tool_call>", think=THINK),
    "minimax m3": Family(
        "MiniMax-M3",
        lambda name, arguments, index: f'{M3}<invoke name="{name}">{elements(arguments)}{M3}</invoke>\n',
        f"{M3}<tool_call>\n",
        "",
        f"{M3}</tool_call>",
        before_calls="",
        think=("<mm:think>", "</mm:think>"),
    ),
    "minicpm 5": Family("openbmb-MiniCPM5-1B", minicpm, between="\n", think=THINK),
    "deepseek r1": Family(
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        lambda name, arguments, index: (
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{compact(arguments)}\n```<｜tool▁call▁end｜>"
        ),
        "<｜tool▁calls▁begin｜>",
        "\n",
        "<｜tool▁calls▁end｜>",
        think=THINK,
    ),
    "deepseek v3.1": Family(
        "deepseek-ai-DeepSeek-V3.1",
        lambda name, arguments, index: (
            f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{compact(arguments)}<｜tool▁call▁end｜>"
        ),
        "<｜tool▁calls▁begin｜>",
        "",
        "<｜tool▁calls▁end｜>",
        before_calls="",
        think=("<think>", "</think>"),
    ),
    "deepseek v3.2": Family(
        "deepseek-ai-DeepSeek-V3.2",
        dsml,
        "<｜DSML｜function_calls>\n",
        "\n",
        "\n</｜DSML｜function_calls>",
        before_calls="\n\n",
        think=("<think>", "</think>"),
    ),
    "deepseek v4": Family(
        "deepseek-ai-DeepSeek-V4",
        dsml,
        "<｜DSML｜tool_calls>\n",
        "\n",
        "\n</｜DSML｜tool_calls>",
        before_calls="\n\n",
        think=("<think>", "</think>"),
    ),
    "kimi k2": Family(
        "moonshotai-Kimi-K2",
        lambda name, arguments, index: (
            f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{compact(arguments)}"
            "<|tool_call_end|>"
        ),
        "<|tool_calls_section_begin|>",
        "",
        "<|tool_calls_section_end|>",
        before_calls="",
    ),
    "kimi k3": Family(
        "Kimi-K3",
        kimi_k3,
        "<|close|>response<|sep|><|open|>tools<|sep|>",
        "",
        "<|close|>tools<|sep|><|close|>message<|sep|>",
        before_calls="",
        think=("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
        text=("", "<|close|>response<|sep|><|close|>message<|sep|>"),
    ),
    "mistral nemo": Family(
        "mistralai-Mistral-Nemo-Instruct-2407", entry_with_id, "[TOOL_CALLS][", ", ", "]", before_calls=""
    ),
    "mistral small 3.2": Family(
        "Mistral-Small-3.2-24B-Instruct-2506",
        lambda name, arguments, index: f"[TOOL_CALLS]{name}[CALL_ID]abcdefg0{index}[ARGS]{compact(arguments)}",
        before_calls="",
    ),
    "ministral 3": Family(
        "mistralai-Ministral-3-14B-Reasoning-2512",
        lambda name, arguments, index: f"[TOOL_CALLS]{name}[ARGS]{compact(arguments)}",
        before_calls="",
        think=("[THINK]", "[/THINK]"),
    ),
    "devstral": Family(
        "unsloth-mistral-Devstral-Small-2507",
        lambda name, arguments, index: f"[TOOL_CALLS]{name}[ARGS]{compact(arguments)}",
        before_calls="",
    ),
    "llama 3.1": Family(
        "meta-llama-Llama-3.1-8B-Instruct",
        lambda name, arguments, index: f'{{"name": "{name}", "parameters": {compact(arguments)}}}',
        takes_text=False,
        most=1,
    ),
    "llama 3.3": Family(
        "meta-llama-Llama-3.3-70B-Instruct",
        lambda name, arguments, index: f'{{"name": "{name}", "parameters": {compact(arguments)}}}',
        takes_text=False,
        most=1,
    ),
    "gpt-oss": Family(
        "openai-gpt-oss-120b",
        lambda name, arguments, index: (
            f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{compact(arguments)}"
        ),
        between="<|end|><|start|>assistant",
        think=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
        takes_text=False,
        text=("<|channel|>final<|message|>", ""),
    ),
    "gpt-oss, to first": Family(
        "openai-gpt-oss-120b",
        lambda name, arguments, index: f" to=functions.{name}<|channel|>commentary json<|message|>{compact(arguments)}",
        between="<|end|><|start|>assistant",
        think=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
        takes_text=False,
        text=("<|channel|>final<|message|>", ""),
    ),
    "gemma 4": Family(
        "google-gemma-4-31B-it",
        lambda name, arguments, index: f"<|tool_call>call:{name}{gemma(arguments)}<tool_call|>",
        before_calls="",
        think=("<|channel>thought\n", "<channel|>"),
    ),
    "lfm 2": Family("LFM2-8B-A1B", python_call, "<|tool_call_start|>[", ", ", "]<|tool_call_end|>", before_calls=""),
    "lfm 2.5": Family(
        "LFM2.5-8B-A1B", python_call, "<|tool_call_start|>[", ", ", "]<|tool_call_end|>", before_calls="", think=THINK
    ),
    "command r7b": Family(
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        lambda name, arguments, index: (
            f'{{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": {compact(arguments)}}}'
        ),
        "<|START_ACTION|>[\n    ",
        ",\n    ",
        "\n]<|END_ACTION|>",
        think=("<|START_THINKING|>", "<|END_THINKING|>"),
        takes_text=False,
        text=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "command a, mixture": Family(
        "Cohere2MoE",
        lambda name, arguments, index: (
            f'{{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": {compact(arguments)}}}'
        ),
        "<|START_ACTION|>[\n    ",
        ",\n    ",
        "\n]<|END_ACTION|>",
        think=("<|START_THINKING|>", "<|END_THINKING|>"),
        takes_text=False,
        text=("<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    "apertus": Family(
        "Apertus-8B-Instruct",
        lambda name, arguments, index: f'{{"{name}": {compact(arguments)}}}',
        "<|tools_prefix|>[",
        ", ",
        "]<|tools_suffix|>",
        before_calls="",
        think=("<|inner_prefix|>", "<|inner_suffix|>"),
    ),
    "apriel 1.6": Family(
        "Apriel-1.6-15b-Thinker-fixed",
        entry_with_id,
        "<tool_calls>[",
        ", ",
        "]</tool_calls>",
        think=("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
    ),
    "gigachat 3": Family(
        "GigaChat3-10B-A1.8B",
        lambda name, arguments, index: "<|message_sep|>\n\nfunction call<|role_sep|>\n" + entry(name, arguments, index),
        before_calls="",
        most=1,
    ),
    "gigachat 3.1": Family(
        "GigaChat3.1-10B-A1.8B",
        lambda name, arguments, index: "<|function_call|>" + entry(name, arguments, index),
        before_calls="",
        most=1,
    ),
    "functionary 3.1": Family(
        "meetkai-functionary-medium-v3.1",
        lambda name, arguments, index: f"<function={name}>{compact(arguments)}</function>",
        before_calls="",
    ),
    "firefunction 2": Family("fireworks-ai-llama-3-firefunction-v2", entry, " functools[", ", ", "]", before_calls=""),
    "solar": Family(
        "upstage-Solar-Open-100B",
        lambda name, arguments, index: (
            f"<|tool_call:begin|>abcdefg0{index}<|tool_call:name|>{name}<|tool_call:args|>{compact(arguments)}"
            "<|tool_call:end|>"
        ),
        "<|tool_calls|>",
        think=("<|think|>", "<|end|><|begin|>assistant"),
        takes_text=False,
        text=("<|content|>", ""),
    ),
    "reka": Family("Reka-Edge", hermes, think=THINK),
    "mimo": Family("MiMo-VL", hermes, between="\n"),
    "muse glimmer": Family(
        "muse-glimmer",
        muse,
        between="<|eom|><|start|>assistant",
        think=(" to=self<|message|>", "<|eom|><|start|>assistant"),
        takes_text=False,
        text=(" to=user<|message|>", ""),
    ),
    "bielik": Family("Bielik-11B-v3.0-Instruct", hermes, between="\n", think=THINK),
}
SEARCH = ("search", {"query": "weather in Rome", "limit": 3})
NESTED = (
    "book",
    {"guest": {"name": "Zoë O'Neil", "nights": 2}, "rooms": ["a", "b"], "paid": False, "note": 'a < b & "c"'},
)
TEXT, THOUGHT = "Let me look that up.", "I need the weather first."


def native_replies() -> list[NativeReply]:
    """All replies: one call, nested arguments, several calls, text before a call, reasoning before a call."""
    return [reply for name, family in FAMILIES.items() for reply in _replies(name, family)]


def _replies(name: str, family: Family) -> list[NativeReply]:
    one, nested, two = _write(family, [SEARCH]), _write(family, [NESTED]), _write(family, [SEARCH, NESTED])
    replies = [
        NativeReply(name, "one call", one, [SEARCH]),
        NativeReply(name, "nested arguments", nested, [NESTED]),
        NativeReply(name, "no call", family.text[0] + TEXT + family.text[1], [], TEXT),
    ]
    if family.most > 1:
        replies.append(NativeReply(name, "two calls", two, [SEARCH, NESTED]))
    if family.takes_text:
        replies.append(NativeReply(name, "text before", TEXT + family.before_calls + one, [SEARCH], TEXT))
    if family.think:
        begin, end = family.think
        replies.append(NativeReply(name, "reasoning before", begin + THOUGHT + end + one, [SEARCH], "", THOUGHT))
    return replies


def _write(family: Family, calls: list[tuple[str, Arguments]]) -> str:
    written = [family.call(name, arguments, index) for index, (name, arguments) in enumerate(calls)]
    return family.begin + family.between.join(written) + family.end
