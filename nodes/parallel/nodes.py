"""The nodes of the parallel graph."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.errors import NodeTimeoutError
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send

from core.context import Context
from core.errors import CrmError, InvalidRequest, ModelError
from core.logging import get_logger
from core.models import private_replies
from nodes.deps import Deps, get_run_context
from nodes.parallel.races import Race, Races
from nodes.parallel.state import (
    Branch,
    BranchInput,
    ParallelAgent,
    ParallelInput,
    ParallelState,
    Reason,
    Status,
)
from nodes.react.state import ReactOutput
from nodes.shared.agent import Agent
from nodes.shared.context import reset_context
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import MERGE
from nodes.shared.structured import ask_text

log = get_logger(__name__)

# The tools of an agent that names none: these only read.
DEFAULT_TOOLS = (
    "search_knowledge_base",
    "search_past_tickets",
    "get_product_version",
    "check_service_status",
)
# An agent has a part of the sources, and others answer too: it needs fewer iterations than a whole task.
MAX_ITERATIONS = 5


class ParallelNodes:
    """The nodes of the parallel graph.

    Args:
        deps: Models and tools.
        agent: Answers the question in each branch.
    """

    def __init__(self, deps: Deps, agent: Agent) -> None:
        self._deps = deps
        self._agent = agent
        self._races = Races()
        self._branch_rules = load_prompt("parallel_task")
        self._merge_prompt = load_prompt("parallel_merge")
        self._answers_template = load_prompt("parallel_answers")

    async def prepare(self, state: ParallelState) -> dict[str, Any]:
        """Open the turn: the question becomes a message, and the last run's results are cleared.

        Raises:
            InvalidRequest: An agent names an unknown tool.
        """
        given = ParallelInput.model_validate(state)
        turn = str(uuid4())
        return {
            # Studio passes only the fields a user filled in; this writes the defaults of the others.
            **dict(given),
            **reset_context(),
            "messages": [HumanMessage(given.question, id=turn)],
            "agents": complete_agents(given.agents, self._deps.tools),
            "race": turn if given.mode == "first" else "",
            "branches": Overwrite([]),
            "success": False,
            "answer": "",
            "answered_by": [],
            "reason": None,
        }

    def send_branches(self, state: ParallelState) -> list[Send]:
        """Edge: send the question to a ``branch`` task for each agent."""
        return [
            Send(
                "branch",
                BranchInput(
                    agent=agent,
                    question=state["question"],
                    contact_id=state["contact_id"],
                    timeout_seconds=state["branch_timeout_seconds"],
                    race=state["race"],
                    background=state["background"],
                    time_zone=state["time_zone"],
                ),
            )
            for agent in state["agents"]
        ]

    async def branch(self, state: BranchInput) -> dict[str, Any]:
        """Let one agent answer within its time limit.

        A failing model or CRM, the time limit and a lost race end this branch and no other. Anything else is
        a bug and ends the run, which can be resumed.
        """
        agent, race = state["agent"], self._races.get(state["race"])
        if race.is_lost_by(agent["name"]):
            return _end_branch(state, "cancelled", race)
        limit = asyncio.timeout(state["timeout_seconds"])
        try:
            async with limit:
                # Which of the branches' answers are used is decided later.
                with race.join(limit), private_replies():
                    output = await self._agent(
                        state["question"],
                        contact_id=state["contact_id"],
                        instruction=f"{agent['instruction']}\n\n{self._branch_rules}".strip(),
                        background=state["background"],
                        time_zone=state["time_zone"],
                        tools=agent["tools"],
                        max_iterations=MAX_ITERATIONS,
                    )
        except (ModelError, CrmError) as error:
            return _end_branch(state, "failed", race, why=error.message)
        except (TimeoutError, NodeTimeoutError):
            status: Status = "cancelled" if race.is_lost_by(agent["name"]) else "timed_out"
            return _end_branch(state, status, race)
        return _judge_output(state, output, race)

    async def gather(self, state: ParallelState) -> Command[Literal["merge", "finish"]]:
        """Take the only or the first good answer, have several merged, or end without one."""
        self._races.drop(state["race"])
        answered = _select_answered(state["branches"])
        if not answered:
            reasons = "; ".join(f"{branch['name']}: {branch['reason']}" for branch in state["branches"])
            answer = f"None of the agents could answer ({reasons})."
            return Command(goto="finish", update={"answer": answer, "reason": "no_branch_answered"})
        if len(answered) > 1 and not state["race"]:
            return Command(goto="merge")
        reason: Reason = "first_answer" if state["race"] else "only_answer"
        first = answered[0]
        return Command(
            goto="finish",
            update={
                "success": True,
                "answer": first["answer"],
                "answered_by": [first["name"]],
                "reason": reason,
            },
        )

    async def merge(self, state: ParallelState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Merge the good answers; when the model cannot, put them side by side."""
        context = get_run_context(runtime)
        messages: list[AnyMessage] = [
            SystemMessage(
                build_system_prompt(self._merge_prompt, locale=context.locale, time_zone=state["time_zone"])
            ),
            HumanMessage(state["question"]),
            HumanMessage(self._answers_template.format(answers=_list_answers(state["branches"]))),
        ]
        try:
            merged = await ask_text(self._deps.models, messages, step=MERGE, model=context.model)
        except ModelError as error:
            log.warning("answers_not_merged", reason=error.message)
            merged = ""
        answered = _select_answered(state["branches"])
        return {
            "success": bool(merged),
            "answer": merged or "\n\n".join(f"{branch['name']}: {branch['answer']}" for branch in answered),
            "answered_by": [branch["name"] for branch in answered],
            "reason": "merged" if merged else "not_merged",
        }

    async def finish(self, state: ParallelState) -> dict[str, Any]:
        """Close the turn: the answer becomes the thread's last message."""
        return {"messages": [AIMessage(state["answer"])]}


def complete_agents(agents: Sequence[ParallelAgent], tools: Collection[str]) -> list[ParallelAgent]:
    """Return the agents with default tools for those that name none.

    Args:
        agents: The agents as requested.
        tools: Names of the existing tools.

    Raises:
        InvalidRequest: An agent names a tool that does not exist, or none where there is no default.
    """
    defaults = [name for name in DEFAULT_TOOLS if name in tools]
    completed = [
        ParallelAgent(
            name=agent["name"],
            instruction=agent["instruction"],
            tools=list(dict.fromkeys(agent.get("tools") or defaults)),
        )
        for agent in agents
    ]
    unknown = {agent["name"]: sorted(set(agent["tools"]) - set(tools)) for agent in completed}
    faults = [
        f"there is no tool {tool!r}, which {name!r} names" for name in unknown for tool in unknown[name]
    ]
    # An agent without a tool would get all of them.
    faults += [f"{agent['name']!r} must name its tools" for agent in completed if not agent["tools"]]
    if faults:
        raise InvalidRequest(
            f"agents: {'; '.join(faults)}; the tools are: {', '.join(tools)}",
            details={"unknown_tools": {name: missing for name, missing in unknown.items() if missing}},
        )
    return completed


def _judge_output(state: BranchInput, output: ReactOutput, race: Race) -> dict[str, Any]:
    """Return the branch's outcome: an answer is good when the agent succeeded and says something."""
    answer = output["final_answer"]
    if not output["success"] or not answer.strip():
        why = output["reason_incomplete"] or "the answer is empty"
        return _end_branch(state, "failed", race, answer=answer, why=why)
    if not race.claim(state["agent"]["name"]):
        return _end_branch(state, "cancelled", race)
    return _end_branch(state, "answered", race, answer=answer)


def _end_branch(
    state: BranchInput, status: Status, race: Race, *, answer: str = "", why: str = ""
) -> dict[str, Any]:
    reasons: dict[Status, str] = {
        "timed_out": f"there was no answer within {state['timeout_seconds']:g} seconds",
        "cancelled": f"{race.winner} answered first",
    }
    name = state["agent"]["name"]
    return {"branches": [Branch(name=name, status=status, answer=answer, reason=reasons.get(status, why))]}


def _select_answered(branches: Sequence[Branch]) -> list[Branch]:
    return [branch for branch in branches if branch["status"] == "answered"]


def _list_answers(branches: Sequence[Branch]) -> str:
    """Return the answers by number and agent; the lines after an answer's first are indented."""
    lines = []
    for number, branch in enumerate(branches, start=1):
        is_answered = branch["status"] == "answered"
        text = branch["answer"].strip().replace("\n", "\n   ") if is_answered else branch["reason"]
        lines.append(f"{number}. lookup({branch['name']}){'' if is_answered else ' failed'}: {text}")
    return "\n".join(lines)
