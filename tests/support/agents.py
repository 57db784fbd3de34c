"""The agents as they are shipped, and a folder of agents to break."""

from pathlib import Path
from typing import cast

from agents.loader import load_agents
from core.memory import NoMemory
from nodes.coordinator.roster import Roster
from nodes.routing.router import Router
from tools.catalogue import crm_tools, memory_tools
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
examples:
  en:
{en}
  pt:
{pt}
escalation:
  - when: A person is asked for.
    team: support
    phrases: [real person]
---
You help.
"""


def agent_text(name: str) -> str:
    """The file of an agent without a fault: 35 lines, the examples below lines 12 and 21."""
    en, pt = (
        "\n".join(f"    - {name} {language} {n}" for n in range(8)) for language in ("hello", "bom dia")
    )
    return AGENT.format(name=name, en=en, pt=pt)


def write(folder: Path, **texts: str) -> Path:
    """Write a file for each name, and a sound ``general.md`` if none is given."""
    for name, text in {"general": agent_text("general"), **texts}.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def shipped(router: Router) -> Roster:
    """The product's agents, found by this router."""
    return Roster(
        agents=load_agents(tools={**crm_tools(cast("CrmClient", None)), **memory_tools(NoMemory())}),
        router=router,
    )
