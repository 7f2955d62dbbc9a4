"""A byte tokenizer with control tokens, and chat templates that write calls as the families' own templates do.

The templates are minimal equivalents, written for these tests: one ChatML frame for all, and within it the tools, the
reasoning, the calls and the results in each family's form. Nothing of them is copied from a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mlx_agent_llm.chat import TOOL_FORMATS
from mlx_agent_llm.errors import RequestError

TOOLS = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
FRAME = (
    "{% macro text(value) %}{{ value if value is string else value | tojson }}{% endmacro %}"
    "{% macro calls_of(calls) %}CALLS{% endmacro %}TOOLS"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}BEGIN{{ message.reasoning_content }}END{% endif %}"
    "{{ message.content }}"
    "{% if message.tool_calls %}{{ calls_of(message.tool_calls) }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = FRAME.replace("CALLS", "").replace("TOOLS", "")  # knows no tools and no reasoning
THINKING = PLAIN.replace("BEGIN", "<think>").replace("END{%", "</think>{%")
OPENED = THINKING + "<think>\n"  # begins the reasoning of the reply
EACH = "{% for call in calls %}{% set f = call.function %}{% set a = f.arguments %}"
JSON = '{"name": "{{ f.name }}", "arguments": {{ a | tojson }}}'
LIST = EACH + "{{ ', ' if not loop.first }}" + JSON + "{% endfor %}"
PARAMETERS = "{% for key, value in a | items %}"
BARE = (
    "{% macro bare(value, quote) %}{% if value is string %}{{ quote }}{{ value }}{{ quote }}"
    "{% elif value is mapping %}{{ '{' }}{% for key, item in value | dictsort %}{{ ',' if not loop.first }}"
    "{{ key }}:{{ bare(item, quote) }}{% endfor %}{{ '}' }}"
    "{% elif value is sequence %}[{% for item in value %}{{ ',' if not loop.first }}{{ bare(item, quote) }}"
    "{% endfor %}]{% else %}{{ value | tojson }}{% endif %}{% endmacro %}"
)
PYTHON = (
    "{% macro python(value) %}{% if value is mapping %}{{ '{' }}{% for key, item in value | items %}"
    "{{ ', ' if not loop.first }}{{ key | tojson }}: {{ python(item) }}{% endfor %}{{ '}' }}"
    "{% elif value is sequence and value is not string %}[{% for item in value %}{{ ', ' if not loop.first }}"
    "{{ python(item) }}{% endfor %}]{% elif value is string or (value is number and value is not boolean) %}"
    "{{ value | tojson }}{% else %}{{ value }}{% endif %}{% endmacro %}"
    + EACH
    + "{{ ', ' if not loop.first }}{{ f.name }}({% for key, value in a | items %}{{ ', ' if not loop.first }}"
    "{{ key }}={{ python(value) }}{% endfor %}){% endfor %}"
)
# A parameter that is a number or a boolean is written as Python's str does.
CODER_VALUE = (
    "{{ value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}"
)
ELEMENTS = (
    "{% macro element(value) %}{% if value is mapping %}{% for key, item in value | items if item is not none %}"
    "]<]minimax[>[<{{ key }}>{{ element(item) }}]<]minimax[>[</{{ key }}>{% endfor %}"
    "{% elif value is sequence and value is not string %}{% for item in value %}"
    "]<]minimax[>[<item>{{ element(item) }}]<]minimax[>[</item>{% endfor %}"
    "{% else %}{{ text(value) }}{% endif %}{% endmacro %}"
)
CALLS = {
    "generic_json": "",
    "xlam": "[" + LIST + "]{# calls in a single JSON array #}",
    "mirothinker": "<use_mcp_tool>"
    + EACH
    + "\n<server_name>tools</server_name>\n<tool_name>{{ f.name }}</tool_name>\n<arguments>\n{{ a | tojson }}\n"
    + "</arguments>{% endfor %}\n</use_mcp_tool>",
    "muse_glimmer": EACH
    + "{{ '<|eom|><|start|>assistant' if not loop.first }} to={{ f.name }}<|message|>"
    + '<atem:function_calls>\n<atem:invoke name="{{ f.name }}">\n'
    + PARAMETERS
    + '<atem:parameter name="{{ key }}">{{ text(value) }}</atem:parameter>\n{% endfor %}'
    + "</atem:invoke>\n</atem:function_calls>{% endfor %}{# to=self<|message|> #}",
    "minimax_m3": ELEMENTS
    + "]<]minimax[>[<tool_call>\n"
    + EACH
    + ']<]minimax[>[<invoke name="{{ f.name }}">{{ element(a) }}]<]minimax[>[</invoke>\n{% endfor %}'
    + "]<]minimax[>[</tool_call>",
    "qwen3": EACH + "{{ '\n' if not loop.first }}<tool_call>\n" + JSON + "\n</tool_call>{% endfor %}",
    "qwen3_coder": EACH
    + "{{ '\n' if not loop.first }}<tool_call>\n<function={{ f.name }}>\n"
    + PARAMETERS
    + "<parameter={{ key }}>\n"
    + CODER_VALUE
    + "\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}",
    "llama3_json": EACH
    + "{{ '; ' if not loop.first }}"
    + JSON.replace("arguments", "parameters", 1)
    + "{% endfor %}<|start_header_id|>",
    "pythonic": "[" + PYTHON + "]{# <|header_start|> #}",
    "lfm2": "<|tool_call_start|>[" + PYTHON + "]<|tool_call_end|>{# <|tool_list_start|> #}",
    "mistral": EACH + "[TOOL_CALLS]{{ f.name }}[ARGS]{{ a | tojson }}{% endfor %}",
    "mistral_v3": "[TOOL_CALLS] [" + LIST + "]",
    "phi4": "<|tool_call|>[" + LIST + "]<|/tool_call|>{# <|tool|> <|/tool|> #}",
    "granite": "<|tool_call|>[" + LIST + "]{# <|start_of_role|> #}",
    "smollm2": "{# SmolLM #}",
    "command_r": "<|START_ACTION|>[\n    "
    + EACH
    + "{{ ',\n    ' if not loop.first }}"
    + '{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ f.name }}", "parameters": {{ a | tojson }}}'
    + "{% endfor %}\n]<|END_ACTION|>",
    "deepseek_v3": "<｜tool▁calls▁begin｜>"
    + EACH
    + "{{ '\n' if not loop.first }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ f.name }}\n```json\n{{ a }}\n```"
    + "<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>",
    "deepseek_v31": "<｜tool▁calls▁begin｜>"
    + EACH
    + "<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{{ a }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>",
    "kimi_k2": "<|tool_calls_section_begin|>"
    + EACH
    + "<|tool_call_begin|>{{ call.id }}<|tool_call_argument_begin|>{{ a | tojson }}<|tool_call_end|>{% endfor %}"
    + "<|tool_calls_section_end|>",
    "glm4": EACH
    + "{{ '\n' if not loop.first }}<tool_call>{{ f.name }}\n"
    + PARAMETERS
    + "<arg_key>{{ key }}</arg_key>\n<arg_value>{{ text(value) }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}",
    "glm47": EACH
    + "<tool_call>{{ f.name }}"
    + PARAMETERS
    + "<arg_key>{{ key }}</arg_key><arg_value>{{ text(value) }}</arg_value>{% endfor %}</tool_call>{% endfor %}",
    "minimax_m2": "<minimax:tool_call>\n"
    + EACH
    + '<invoke name="{{ f.name }}">\n'
    + PARAMETERS
    + '<parameter name="{{ key }}">{{ text(value) }}</parameter>\n{% endfor %}</invoke>\n{% endfor %}'
    + "</minimax:tool_call>",
    "functiongemma": BARE
    + EACH
    + "<start_function_call>call:{{ f.name }}{{ bare(a, '<escape>') }}<end_function_call>{% endfor %}",
    "gemma4": BARE + EACH + "<|tool_call>call:{{ f.name }}{{ bare(a, '<|\"|>') }}<tool_call|>{% endfor %}",
    "harmony": EACH
    + "{{ '<|end|><|start|>assistant' if not loop.first }}"
    + "<|channel|>commentary to=functions.{{ f.name }} <|constrain|>json<|message|>{{ a | tojson }}{% endfor %}"
    + "{# <|start|>assistant #}",
}


def template_of(name: str) -> str:
    """The template of a family; what shows in it which family it is stands in comments where the form does not."""
    reasoning = TOOL_FORMATS[name].reasoning
    calls = CALLS[name].replace("<|start_header_id|>", '{# <|start_header_id|> "parameters" #}')
    line_break = "\n" if reasoning and reasoning.gap else ""
    lead = reasoning.lead if reasoning else ""
    begin, end = (f"{lead}{reasoning.begin}{line_break}", f"{line_break}{reasoning.end}") if reasoning else ("", "")
    end += reasoning.bridge + 2 * line_break if reasoning else ""
    tools = "" if name in ("generic_json", "smollm2") else TOOLS
    frame = FRAME.replace("TOOLS", tools).replace("CALLS", calls)
    if TOOL_FORMATS[name].text_begin:
        text_begin, text_end = TOOL_FORMATS[name].text_begin, TOOL_FORMATS[name].text_end
        is_text = "message.role == 'assistant' and not message.tool_calls"
        begins, ends = (f"{{% if {is_text} %}}{mark}{{% endif %}}" for mark in (text_begin, text_end))
        frame = frame.replace("{{ message.content }}", begins + "{{ message.content }}" + ends)
    return frame.replace("BEGIN", begin).replace("END{% endif", end + "{% endif")


class TemplateTokenizer:
    """One token a byte, and control tokens: ChatML's two and those of a tool format; renders with Jinja as HF does."""

    strip_leading_space = False

    def __init__(self, template: str, control_tokens: Sequence[str] = ()) -> None:
        names = ("<|im_start|>", "<|im_end|>", *control_tokens)
        self.chat_template = template
        self.special_token_texts: Mapping[int, str] = dict(enumerate(names, 256))
        self.vocab_size = 256 + len(names)
        self.eos_token_ids = frozenset([257])
        self.token_bytes = [bytes([byte]) for byte in range(256)] + [b""] * len(names)
        self._split = re.compile(f"({'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})")
        environment = ImmutableSandboxedEnvironment()
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(template)

    @classmethod
    @cache
    def of(cls, name: str) -> TemplateTokenizer:
        """The tokenizer of a family, with its marks as control tokens."""
        return cls(template_of(name), sorted(TOOL_FORMATS[name].markers))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids = {name: token_id for token_id, name in self.special_token_texts.items()}
        return [token for part in self._split.split(text) for token in ([ids[part]] if part in ids else part.encode())]

    def show(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        texts = (self.special_token_texts.get(token_id, "").encode() or bytes([token_id]) for token_id in token_ids)
        return b"".join(texts).decode()

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(self.token_bytes[token_id] for token_id in token_ids).decode(errors="replace")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **kwargs
            )
        except (TemplateError, TypeError) as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error
