"""The nodes of the critique-and-refine graph: one class, one method per node."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeVar
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError, ModelMisconfigured, ModelRefused
from core.models import ModelStep, is_truncated, private_replies
from core.models.echoes import ECHO_FAULT, find_echo
from nodes.critique_refine.judgements import (
    Review,
    Verdict,
    build_critique,
    build_validation,
    build_version,
    get_critique,
    normalise_score,
    select_best,
)
from nodes.critique_refine.message_text import extract_message, find_issues
from nodes.critique_refine.state import (
    CritiqueRefineInput,
    CritiqueRefineReason,
    CritiqueRefineState,
    Validation,
)
from nodes.critique_refine.transcript import build_feedback, build_request, build_review_request
from nodes.deps import Deps, get_run_context
from nodes.shared.citations import no_grounding
from nodes.shared.contact import get_time_zone, load_contact_profile
from nodes.shared.context import reset_context
from nodes.shared.grounding import ground_answer
from nodes.shared.prompts import load_prompt
from nodes.shared.steps import CRITICISE, GENERATE, REFINE, VALIDATE
from nodes.shared.structured import (
    NO_LANGUAGE_MODEL,
    ask_structured,
    build_unreadable_notice,
    has_language_model,
)

T = TypeVar("T")

# A little more than all attempts of a model call together, and below the node's timeout, which would end the
# run with an error and without the message.
CALL_TIMEOUT_SECONDS = 200.0
NO_MESSAGE = "There is no message: the model's replies could not be read."
NO_MESSAGE_WITHOUT_MODEL = f"There is no message: {NO_LANGUAGE_MODEL}."


class CritiqueRefineNodes:
    """The nodes of the critique-and-refine graph.

    Args:
        deps: The models and the CRM.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._generate_prompt = load_prompt("critique_refine_generate")
        self._criticise_prompt = load_prompt("critique_refine_criticise")
        self._criticise_question = load_prompt("critique_refine_criticise_question")
        self._validate_prompt = load_prompt("critique_refine_validate")
        self._validate_question = load_prompt("critique_refine_validate_question")
        self._refine_prompt = load_prompt("critique_refine_refine")

    async def prepare(self, state: CritiqueRefineState) -> dict[str, Any]:
        """Node: read the customer, append the request to the thread and clear what the last run left.

        Raises:
            NotFound: The CRM does not know the contact.
            CrmUnavailable: The CRM did not answer. The thread is left as it was.
        """
        given = CritiqueRefineInput.model_validate(state)
        customer = await load_contact_profile(self._deps, given.contact_id)
        return {
            **reset_context(given.background, get_time_zone(customer)),
            "messages": [HumanMessage(given.prompt, id=str(uuid4()))],
            "customer": customer,
            "draft": "",
            "critique": None,
            "critique_fault": None,
            "validation": None,
            "validation_fault": None,
            "cycles": 0,
            "history": [],
            "success": False,
            "output": "",
            "score": 0.0,
            "reason": None,
            **no_grounding(),
        }

    async def generate(
        self, state: CritiqueRefineState, *, runtime: Runtime[Context]
    ) -> Command[Literal["criticise", "validate", "finish"]]:
        """Node: write the first draft. There is no version to fall back on, so a model's error is raised."""
        context = get_run_context(runtime)
        if not has_language_model(self._deps.models, context.model):
            return Command(goto="finish", update={"reason": "needs_model"})
        request = build_request(state, self._generate_prompt, context.locale)
        draft = await self._write(request, GENERATE, context)
        if draft is None:
            return Command(goto="finish", update={"reason": "model_reply_unreadable"})
        return Command(goto=["criticise", "validate"], update={"draft": draft})

    async def criticise(self, state: CritiqueRefineState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: score the version. If the critic fails, the validator's verdict still counts."""
        context = get_run_context(runtime)
        messages = [
            *build_review_request(state, self._criticise_prompt, context.locale),
            HumanMessage(self._criticise_question),
        ]
        review, fault = await _attempt(
            ask_structured(self._deps.models, messages, Review, step=CRITICISE, model=context.model)
        )
        return {"critique": build_critique(review) if review else None, "critique_fault": fault}

    async def validate(self, state: CritiqueRefineState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: approve or reject the version. One that code can reject costs no model call."""
        draft = state["draft"]
        if issues := find_issues(draft):
            return {"validation": Validation(approved=False, issues=issues), "validation_fault": None}
        context = get_run_context(runtime)
        # Models cannot count, so the question states the length.
        question = self._validate_question.format(words=len(draft.split()), characters=len(draft))
        messages = [
            *build_review_request(state, self._validate_prompt, context.locale),
            HumanMessage(question),
        ]
        verdict, fault = await _attempt(
            ask_structured(self._deps.models, messages, Verdict, step=VALIDATE, model=context.model)
        )
        return {"validation": build_validation(verdict) if verdict else None, "validation_fault": fault}

    async def judge(self, state: CritiqueRefineState) -> Command[Literal["refine", "finish"]]:
        """Node: record the version, and accept it, refine it or end.

        A missing judgement approves nothing, whatever the other one says, and ends the run.
        """
        version = build_version(state["draft"], state["cycles"], state["critique"], state["validation"])
        update: dict[str, Any] = {"history": [*state["history"], version]}
        if _is_good_enough(state):
            return Command(goto="finish", update={**update, "success": True})
        if reason := _find_end_reason(state):
            return Command(goto="finish", update={**update, "reason": reason})
        return Command(goto="refine", update=update)

    async def refine(
        self, state: CritiqueRefineState, *, runtime: Runtime[Context]
    ) -> Command[Literal["criticise", "validate", "finish"]]:
        """Node: rewrite the version by its judgements. If that fails, the best version is the answer."""
        context = get_run_context(runtime)
        messages = [
            *build_review_request(state, self._refine_prompt, context.locale),
            build_feedback(state["history"][-1]),
        ]
        draft, fault = await _attempt(self._write(messages, REFINE, context))
        if draft is None:
            return Command(goto="finish", update={"reason": fault})
        update = {"draft": draft, "cycles": state["cycles"] + 1}
        return Command(goto=["criticise", "validate"], update=update)

    async def finish(self, state: CritiqueRefineState) -> dict[str, Any]:
        """Node: answer with the best version, its judgements, and what it states that is not known."""
        best = select_best(state["history"])
        if best is None:
            text = NO_MESSAGE_WITHOUT_MODEL if state["reason"] == "needs_model" else NO_MESSAGE
            return {"messages": [AIMessage(text)]}
        known = [state["instruction"], state["background"], json.dumps(state["customer"])]
        grounding = await ground_answer(
            best["text"], message=state["prompt"], known=known, time_zone=state["time_zone"]
        )
        return {
            **grounding,
            "messages": [AIMessage(best["text"])],
            "output": best["text"],
            "score": normalise_score(best["total"]),
            "critique": get_critique(best),
            "validation": best["validation"],
        }

    async def _write(self, messages: Sequence[AnyMessage], step: ModelStep, context: Context) -> str | None:
        """Ask for a message; a reply that is empty, was cut or repeats the prompt is reported once.

        Returns:
            The message alone, or ``None`` when the second reply held none either.

        Raises:
            ModelError: The model failed permanently.
        """
        request = list(messages)
        for _ in range(2):
            # A draft is nobody's answer before it is approved.
            with private_replies():
                reply = await self._deps.models.reply(
                    request, temperature=step.temperature, role=step.role, model=context.model
                )
            text = extract_message(reply.text)
            if is_truncated(reply):
                fault = "it was cut at the output limit: write a shorter message"
            elif not text:
                fault = "there was no message in it: write the message itself"
            elif find_echo(text):
                fault = ECHO_FAULT
            else:
                return text
            request = [*messages, build_unreadable_notice(fault)]
        return None


async def _attempt(call: Awaitable[T | None]) -> tuple[T | None, CritiqueRefineReason | None]:
    """Return the value of a model call, or why there is none, once the run has a version to answer with.

    Args:
        call: Returns ``None`` when the model's replies could not be read.
    """
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            value = await call
    except ModelRefused:
        return None, "model_refused"
    except ModelMisconfigured:
        return None, "model_misconfigured"
    except (ModelError, TimeoutError):
        return None, "model_unavailable"
    return value, "model_reply_unreadable" if value is None else None


def _is_good_enough(state: CritiqueRefineState) -> bool:
    critique, validation = state["critique"], state["validation"]
    if critique is None or validation is None:
        return False
    return validation["approved"] and normalise_score(critique["total"]) >= state["quality_threshold"]


def _find_end_reason(state: CritiqueRefineState) -> CritiqueRefineReason | None:
    """Return why the run cannot go on to another cycle, if it cannot."""
    if fault := state["critique_fault"] or state["validation_fault"]:
        return fault
    return "max_cycles_reached" if state["cycles"] >= state["max_refinement_cycles"] else None
