"""What the customer is shown: a tour fitted to their profile, and how to set their integration up."""

from typing import Any, Literal, TypeAlias, cast

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.deps import Deps, Node, get_run_context
from nodes.onboarding.articles import articles_on, titles, told_by_model
from nodes.onboarding.route import onward
from nodes.onboarding.state import OnboardingState, Outcome
from nodes.onboarding.texts import TEXTS
from nodes.shared.prompts import load_prompt

AfterTour: TypeAlias = Literal["guide", "ask"]


def tour(deps: Deps) -> Node[OnboardingState, Command[AfterTour]]:
    """Node: write the tour from the articles that fit the use case; without articles there is none."""
    system = load_prompt("onboarding_tour")

    async def tour(state: OnboardingState, *, runtime: Runtime[Context]) -> Command[AfterTour]:
        context = get_run_context(runtime)
        texts = TEXTS[state["language"]]
        wish = state["profile"]["use_case"] or state["profile"]["industry"] or texts.first_steps
        found_for, articles = await articles_on(deps, wish, texts.first_steps)
        told = [*state["told"], "tour"]
        if not articles:
            reason = "there was no help article to show"
            outcomes = dict(state["outcomes"])
            outcomes["tour"] = Outcome(status="skipped", reason=reason)
            goto = cast("AfterTour", onward({**state, "outcomes": outcomes}))
            said = [*state["said"], texts.no_tour]
            return Command(goto=goto, update={"told": told, "outcomes": outcomes, "said": said})
        text = await told_by_model(
            deps, system, state, found_for, articles, locale=context.locale, model=context.model
        )
        plain = texts.plain_tour.format(articles=titles(articles))
        return Command(goto="ask", update={"told": told, "said": [*state["said"], text or plain]})

    return tour


def guide(deps: Deps) -> Node[OnboardingState, dict[str, Any]]:
    """Node: say how to set up what the customer wants to connect."""
    system = load_prompt("onboarding_guide")

    async def guide(state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        texts = TEXTS[state["language"]]
        wish, articles = await articles_on(deps, state["integration"])
        text: str | None = texts.no_guide
        if articles:
            text = await told_by_model(
                deps, system, state, wish, articles, locale=context.locale, model=context.model
            )
        plain = texts.plain_guide.format(articles=titles(articles))
        return {"told": [*state["told"], "guide"], "said": [*state["said"], text or plain]}

    return guide
