"""Answer what the customer asks in place of a reply; the question they were asked stays open."""

from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.deps import Deps, Node, get_run_context
from nodes.onboarding.articles import articles_on, titles, told_by_model
from nodes.onboarding.state import OnboardingState
from nodes.onboarding.texts import TEXTS
from nodes.shared.prompts import load_prompt


def answer(deps: Deps) -> Node[OnboardingState, dict[str, Any]]:
    """Node: answer briefly from the help articles."""
    system = load_prompt("onboarding_answer")

    async def answer(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        texts = TEXTS[state["language"]]
        asked = next(
            message.text for message in reversed(state["messages"]) if isinstance(message, HumanMessage)
        )
        _, articles = await articles_on(deps, asked)
        text: str | None = texts.no_answer
        if articles:
            text = await told_by_model(
                deps, system, state, asked, articles, locale=context.locale, model=context.model
            )
        plain = texts.plain_answer.format(articles=titles(articles))
        return {"said": [*state["said"], text or plain]}

    return answer
