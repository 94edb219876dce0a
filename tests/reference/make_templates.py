"""Renders the chat templates in `templates/` with transformers' own jinja environment and stores what came out.

Run it like make_reference.py. Each entry of `templates.json` names a template, gives the conversation, and holds either
`expected` or `error`, the message with which the template itself refuses the conversation.
"""

import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).resolve().parent
BOS, EOS = "<s>", "</s>"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place, \"now\" or <later> & elsewhere.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Town, e.g. Zürich"},
                "days": {"type": "integer", "minimum": 0, "default": 1},
                "scale": {"enum": ["c", "f"]},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Time.", "parameters": {"type": "object", "properties": {}}}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, call_id):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


MEMORIES = "# Memories\n- Velka's colour is teal.\n- The lab's code is 4417.\n"
CHAT = [turn("system", MEMORIES), turn("user", "  Which code? "), turn("assistant", "4417."), turn("user", "Und jetzt? 日本 🙂")]
NO_SYSTEM = [turn("user", "Hello"), turn("assistant", "<think>\nshort\n</think>\n\nHi!"), turn("user", "Bye <b>&amp;</b>")]
TOOL_TURNS = [
    turn("system", "Be short."),
    turn("user", "Weather in Zürich?"),
    turn("assistant", None, tool_calls=[call("get_weather", {"place": "Zürich", "days": 2, "deep": {"a": [1, 2.5, True, None]}}, "abcdefghi")]),
    turn("tool", "{\"sky\": \"clear\"}", tool_call_id="abcdefghi"),
    turn("assistant", "Clear."),
    turn("user", "Thanks"),
]
TWO_CALLS = [
    turn("user", "Both, please."),
    turn("assistant", "<think>two calls</think>\nNow:", tool_calls=[call("clock", {}, "123456789"), call("get_weather", {"place": "Bern"}, "987654321")]),
    turn("tool", "12:00", tool_call_id="123456789"),
    turn("tool", "rain", tool_call_id="987654321"),
]
# A message of one part: several are joined by line ends before the template sees them, which transformers leaves to it.
PARTS = [
    turn("user", [{"type": "text", "text": " one "}]),
    turn("assistant", None),
    turn("user", "three\n"),
]
MANY = [turn("system", "s"), turn("tool", "hidden"), turn("user", "uno"), turn("assistant", "dos"), turn("user", "five"), turn("user", "abc")]


def entry(template, messages, tools=None, prompt="assistant_turn", **kwargs):
    return {"template": template, "messages": messages, "tools": tools, "prompt": prompt, "kwargs": kwargs}


def all_entries():
    return [
        entry("chatml-tools", CHAT),
        entry("chatml-tools", CHAT, prompt="nothing"),
        entry("chatml-tools", NO_SYSTEM, enable_thinking=False),
        entry("chatml-tools", NO_SYSTEM, tools=[WEATHER]),
        entry("chatml-tools", TOOL_TURNS, tools=[WEATHER, CLOCK]),
        entry("chatml-tools", TWO_CALLS, tools=[CLOCK, WEATHER]),
        entry("chatml-tools", NO_SYSTEM + [turn("assistant", "See you ")], prompt="continue_last"),
        entry("headers-dated", CHAT),
        entry("headers-dated", NO_SYSTEM, date_string="01 Jan 2030"),
        entry("headers-dated", TOOL_TURNS, tools=[WEATHER, CLOCK]),
        entry("headers-dated", TWO_CALLS, tools=[CLOCK]),
        entry("headers-dated", [turn("system", "only this")], tools=[CLOCK]),
        entry("headers-dated", [turn("user", "q"), turn("tool", '{"degrees": 21, "text": "naïve"}')]),
        entry("brackets-alternating", CHAT, prompt="nothing"),
        entry("brackets-alternating", TOOL_TURNS, tools=[WEATHER, CLOCK]),
        entry("brackets-alternating", TWO_CALLS, tools=[CLOCK]),
        entry("brackets-alternating", [turn("assistant", "I first")]),
        entry("brackets-alternating", [turn("user", "a"), turn("narrator", "b")]),
        entry("plain-lines", CHAT),
        entry("plain-lines", MANY, tools=[WEATHER, CLOCK]),
        entry("plain-lines", NO_SYSTEM, prompt="nothing"),
        entry("content-parts", PARTS, clock=True),
        entry("content-parts", CHAT, options={"b": [1, {"c": "é"}], "a": 1.5, "empty": [], "none": None, "yes": True}),
    ]


def render(one):
    """The entry with what transformers makes of it."""
    template = (HERE / "templates" / f"{one['template']}.jinja").read_text()
    try:
        rendered, _ = render_jinja_template(
            conversations=[one["messages"]],
            tools=one["tools"],
            chat_template=template,
            add_generation_prompt=one["prompt"] == "assistant_turn",
            continue_final_message=one["prompt"] == "continue_last",
            bos_token=BOS,
            eos_token=EOS,
            **one["kwargs"],
        )
        return {**one, "expected": rendered[0]}
    except jinja2.exceptions.TemplateError as error:
        return {**one, "error": str(error)}


def main():
    rendered = [render(one) for one in all_entries()]
    document = {"bos_token": BOS, "eos_token": EOS, "entries": rendered}
    (HERE / "templates.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for one in rendered:
        print(f"{one['template']:22} {one['prompt']:15}", repr(one.get("expected", "refused: " + one.get("error", "")))[:120])


if __name__ == "__main__":
    main()
