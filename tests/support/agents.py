"""The shipped agents, and folders of agent files for tests that break them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

from agents.loader import load_agents
from agents.spec import AgentSpec
from core.memory import NoMemory
from nodes.coordinator.router import AgentRegistry, Router
from tools.catalogue import crm_tools, memory_tools
from tools.consultation import CONSULT_AGENT
from tools.crm.client import CrmClient

TOOLS = ("look_up", "send")

# The line of each field matters to the tests that break it.
AGENT = """\
---
name: {name}
category: support
description: Helps.
pattern: react
tools:
  - look_up
  - send
retrieval: general
temperature: 0.2
team: support
examples:
  en:
{en}
  pt:
{pt}
escalation:
  - when: A lawyer is mentioned.
    team: billing
    phrases: [my lawyer]
---
You help.
"""


def agent_text(name: str) -> str:
    """Return the text of a valid agent file: 36 lines, the examples below lines 13 and 22."""
    en, pt = (
        "\n".join(f"    - {name} {language} {n}" for n in range(8)) for language in ("hello", "bom dia")
    )
    return AGENT.format(name=name, en=en, pt=pt)


def write_agents(folder: Path, **texts: str) -> Path:
    """Write a file for each name, and a valid ``general.md`` if none is passed."""
    for name, text in {"general": agent_text("general"), **texts}.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def load_shipped_agents(router: Router) -> AgentRegistry:
    """Return the product's agents with this router."""
    return AgentRegistry(specs=load_shipped_specs(), router=router)


@cache
def load_shipped_specs() -> Mapping[str, AgentSpec]:
    """Return the product's agents; their files are read once per process."""
    return load_agents(tools=(*crm_tools(cast("CrmClient", None)), *memory_tools(NoMemory()), CONSULT_AGENT))
