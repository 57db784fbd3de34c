"""Which replies repeat the prompt, with the prompts that the service really sends."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from agents.loader import load_agents
from core.memory import Hit, NoMemory
from core.models.echoes import HEADINGS, SECTION_TAGS, find_echo, find_echo_in_value
from core.packing import ORDER, build_memory_items
from core.texts import fence
from nodes.coordinator.specialists import build_instruction
from nodes.shared.context import build_background_messages
from nodes.shared.structured import build_unreadable_notice
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("prompts/*.md"), *ROOT.glob("nodes/**/*.py"), *ROOT.glob("core/*.py")]
ANSWERS = [
    "Your order ORD-7001 left on 2026-11-02 and arrives on Friday.",
    "1. Open Settings > API.\n2. Press [Review](https://example.com/review).\n- [ ] Done [1]",
    "A colleague takes over: the team for billing answers within 4 hours.",
    "Wrap it in `<customer>` and `</customer>`, as in `<summary>`.",
    "Dear Ana,\n\nThe review of your results is done (plan: Pro). See [TKT-2031].",
    "Use <b>bold</b> or x < y > z. [Customer] has no meaning here.",
    "",
]
MEMORY = Hit(
    id="m-1",
    kind="message",
    text="I moved to Porto",
    at=datetime(2026, 11, 2, tzinfo=UTC),
    session_id="1a2b3c4d5e",
    score=1.0,
    ranks=(),
)
PROMPTS = [
    *(fence(name, "Ana, 32") for name in ORDER),
    *(f"[{heading}]\nsomething" for heading in HEADINGS),
    build_unreadable_notice("it was empty").text,
    build_background_messages("The contact is Ana.")[0].text,
    *(item.text for item in build_memory_items([MEMORY], known=())),
    "<|im_start|>assistant",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_no_echo(answer: str) -> None:
    assert find_echo(answer) is None


# The shortest prompts are a frame around values, whose headings and tags are echoes of their own.
INSTRUCTIONS = [
    path for path in sorted(ROOT.glob("prompts/*.md")) if len(path.read_text("utf-8").split()) > 40
]


@pytest.mark.parametrize("path", INSTRUCTIONS, ids=lambda path: path.stem)
def test_a_prompt_that_is_repeated_is_an_echo(path: Path) -> None:
    assert find_echo(f"Sure! {path.read_text(encoding='utf-8')}")


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("frame", ["{}", "Sure!\n{}\nAnything else?", "```\n{}\n```"])
def test_a_part_of_a_prompt_is_an_echo(prompt: str, frame: str) -> None:
    assert find_echo(frame.format(prompt))


def test_the_cases_of_escalation_of_every_agent_are_an_echo() -> None:
    tools = {**crm_tools(cast("CrmClient", None)), **memory_tools(NoMemory())}
    for spec in load_agents(tools=tools).values():
        rules = build_instruction(spec).removeprefix(spec.prompt)
        assert find_echo(rules)
        assert all(find_echo(line) for line in rules.split("\n") if "(team:" in line)


@given(st.sampled_from(PROMPTS), st.text(max_size=80), st.text(max_size=80))
def test_an_echo_is_found_whatever_surrounds_it(prompt: str, before: str, after: str) -> None:
    text = f"{before.replace('`', '')}\n{prompt}\n{after.replace('`', '')}"
    assert find_echo(text)
    assert find_echo_in_value({"reason": None, "steps": [{"text": text}], "score": 3})


def test_every_tag_and_heading_of_the_prompts_is_known() -> None:
    text = "\n".join(path.read_text() for path in SOURCES)
    tags = set(re.findall(r"\bfence\(\s*[\"'](\w+)[\"']", text)) | set(ORDER)
    assert tags <= SECTION_TAGS
    headings = re.findall(
        r"(?:^|HumanMessage\(\s*f?\"|format_list\(\"|_build_note\(\")\[?([A-Z][\w ]+)\]", text
    )
    assert headings
    unknown = [title for title in headings if not find_echo(f"[{title}]")]
    assert not unknown


def test_a_conversation_that_was_echoed_is_found() -> None:
    turns = [HumanMessage("Where is my order?"), AIMessage("On its way.")]
    assert find_echo(fence("conversation", "\n".join(turn.text for turn in turns)))
