"""The nodes of the consensus graph."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite, Send, interrupt

from core.context import Context
from core.errors import ModelError
from core.texts import fence
from nodes.consensus.state import (
    DEFAULT_WEIGHT,
    Ballot,
    ConsensusInput,
    ConsensusState,
    HumanDecision,
    Reason,
    Vote,
    VoteInput,
    limit_choice,
)
from nodes.consensus.tally import Tally, WeightedVote, count_votes
from nodes.deps import Deps, get_run_context
from nodes.shared.contact import get_time_zone, load_contact_profile
from nodes.shared.context import build_background_messages, reset_context
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import VOTE
from nodes.shared.structured import NO_LANGUAGE_MODEL, ask_structured, has_language_model

# A little more than all attempts of a model call together, and less than the step's timeout, which would end
# the run.
VOTE_TIMEOUT_SECONDS = 200.0

_DECIDED_BY: Mapping[Reason, str] = {
    "majority": "by majority",
    "unanimous": "unanimously",
    "weighted": "by the weight of the votes",
    "quorum": "by quorum",
    "decided_by_human": "by a person",
}


class ConsensusNodes:
    """The nodes of the consensus graph.

    Args:
        deps: The model and the CRM.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._voter_prompt = load_prompt("consensus_voter")
        self._contact_template = load_prompt("consensus_contact")

    async def prepare(self, state: ConsensusState) -> dict[str, Any]:
        """Open the turn: read the contact, and clear the last run's results.

        The contact is read first, so that a run that cannot start leaves no turn on the thread.
        """
        given = ConsensusInput.model_validate(state)
        contact = await load_contact_profile(self._deps, given.contact_id)
        return {
            # Studio passes only the fields a user filled in; this writes the defaults of the others.
            **dict(given),
            **reset_context(time_zone=get_time_zone(contact)),
            "messages": [HumanMessage(given.question, id=str(uuid4()))],
            "contact": contact,
            "votes": Overwrite([]),
            "tally": None,
            "decision": "",
            "comment": "",
            "reason": None,
        }

    def send_to_voters(self, state: ConsensusState) -> list[Send]:
        """Edge: send the same case to a ``vote`` task for each lens."""
        profile = fence("contact", json.dumps(state["contact"], ensure_ascii=False, indent=1))
        background = "\n\n".join(
            [
                self._contact_template.format(contact=profile),
                *(message.text for message in build_background_messages(state["background"])),
            ]
        )
        return [
            Send(
                "vote",
                VoteInput(
                    lens=lens,
                    options=state["options"],
                    question=state["question"],
                    background=background,
                    time_zone=state["time_zone"],
                ),
            )
            for lens in state["lenses"]
        ]

    async def vote(self, state: VoteInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Vote through one lens. A voter that cannot vote says why, and the others count."""
        context = get_run_context(runtime)
        if not has_language_model(self._deps.models, context.model):
            return _build_invalid_vote(state, f"The voter abstains: {NO_LANGUAGE_MODEL}")
        try:
            async with asyncio.timeout(VOTE_TIMEOUT_SECONDS):
                ballot = await ask_structured(
                    self._deps.models,
                    self._build_messages(state, context.locale),
                    limit_choice(Ballot, state["options"]),
                    step=VOTE,
                    model=context.model,
                )
        except ModelError as error:
            return _build_invalid_vote(state, error.message)
        except TimeoutError:
            return _build_invalid_vote(state, "The voter did not answer in time")
        if ballot is None:
            return _build_invalid_vote(state, "The voter's replies could not be read")
        vote = Vote(
            voter=state["lens"]["name"],
            choice=ballot.choice,
            confidence=ballot.confidence,
            reasoning=ballot.reasoning,
            valid=True,
        )
        return {"votes": [vote]}

    async def count(
        self, state: ConsensusState, *, runtime: Runtime[Context]
    ) -> Command[Literal["ask_human", "finish"]]:
        """Decide by the rule, or ask a person.

        Without a valid vote there is nothing to ask about, unless the voters abstained for want of a model.
        """
        weights = {lens["name"]: lens.get("weight", DEFAULT_WEIGHT) for lens in state["lenses"]}
        votes = [
            WeightedVote(choice=vote["choice"], weight=weights[vote["voter"]]) for vote in state["votes"]
        ]
        tally = count_votes(votes, state["options"], rule=state["rule"], quorum=state["quorum"])
        update: dict[str, Any] = {"tally": tally}
        if tally["outcome"] == "decided":
            update |= {"decision": tally["winner"], "reason": state["rule"]}
            return Command(goto="finish", update=update)
        if not has_language_model(self._deps.models, get_run_context(runtime).model):
            return Command(goto="ask_human", update={**update, "reason": "needs_model"})
        if tally["outcome"] == "no_valid_votes":
            return Command(goto="finish", update={**update, "reason": "no_valid_votes"})
        return Command(goto="ask_human", update=update)

    async def ask_human(self, state: ConsensusState) -> dict[str, Any]:
        """Wait for a person's decision; the person sees the votes with their reasons.

        LangGraph rejects an answer that is not one of the options before anything changes, and the question
        stays open.
        """
        request = {
            "question": state["question"],
            "contact_id": state["contact_id"],
            "options": state["options"],
            "tally": state["tally"],
            "votes": state["votes"],
            "reason": _describe_doubt(state["reason"]),
        }
        answer = interrupt(request, response_schema=limit_choice(HumanDecision, state["options"]))
        return {"decision": answer.choice, "comment": answer.comment, "reason": "decided_by_human"}

    async def finish(self, state: ConsensusState) -> dict[str, Any]:
        """Close the turn: the decision and the reasons become the thread's last message."""
        lines = [
            _describe_decision(state),
            *([f"Comment: {state['comment']}"] if state["comment"] else []),
            *(
                f"- {vote['voter']}: {vote['choice'] or 'no vote'}. {vote['reasoning']}"
                for vote in state["votes"]
            ),
        ]
        return {"messages": [AIMessage("\n".join(lines))]}

    def _build_messages(self, state: VoteInput, locale: str | None) -> list[AnyMessage]:
        lens = state["lens"]
        options = "\n".join(f"- {option}" for option in state["options"])
        system = self._voter_prompt.format(
            name=lens["name"], instruction=lens["instruction"], options=options
        )
        return [
            SystemMessage(build_system_prompt(system, locale=locale, time_zone=state["time_zone"])),
            HumanMessage(state["background"]),
            HumanMessage(state["question"]),
        ]


def _describe_doubt(reason: Reason | None) -> str:
    if reason == "needs_model":
        return f"The voters abstain: {NO_LANGUAGE_MODEL}"
    return "The rule does not decide"


def _build_invalid_vote(state: VoteInput, reason: str) -> dict[str, Any]:
    voter = state["lens"]["name"]
    return {"votes": [Vote(voter=voter, choice="", confidence=0.0, reasoning=reason, valid=False)]}


def _describe_decision(state: ConsensusState) -> str:
    reason = state["reason"]
    if reason is None or reason not in _DECIDED_BY:
        return f"No decision: none of the {len(state['votes'])} voters gave a valid vote."
    return f"Decision: {state['decision']} ({_DECIDED_BY[reason]}{_describe_counts(state['tally'])})."


def _describe_counts(tally: Tally | None) -> str:
    if tally is None:
        return ""
    counts = ", ".join(f"{count['option']} {count['votes']}" for count in tally["counts"])
    invalid = tally["voters"] - tally["valid"]
    return f"; votes: {counts}{f', invalid {invalid}' if invalid else ''}"
