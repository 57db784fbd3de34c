"""Texts made from help articles."""

import asyncio
from collections.abc import Sequence

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from core.errors import CrmError, ModelError
from core.models import is_truncated
from nodes.deps import Deps
from nodes.onboarding.state import OnboardingState, Profile
from nodes.shared.prompts import add_locale
from tools.crm.models import Article

MOST_ARTICLES = 3
TEMPERATURE = 0.3
# See nodes.onboarding.read.
CALL_TIMEOUT_SECONDS = 200.0


async def articles_on(deps: Deps, *queries: str) -> tuple[str, list[Article]]:
    """The first query that finds articles, and the best of them; none where none does, or the CRM is away."""
    try:
        for query in queries:
            found = await deps.crm.search_knowledge_base(query)
            if found.articles:
                return query, found.articles[:MOST_ARTICLES]
    except CrmError:
        pass  # to whoever waits for an answer it is the same as no article
    return queries[0], []


async def told_by_model(
    deps: Deps,
    system: str,
    state: OnboardingState,
    task: str,
    articles: Sequence[Article],
    *,
    locale: str | None,
    model: str | None,
) -> str | None:
    """A text of the model's on the articles; ``None`` when the model failed, or its text is not whole."""
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            reply = await deps.models.reply(
                _messages(add_locale(system, locale or state["language"]), state["profile"], task, articles),
                temperature=TEMPERATURE,
                model=model,
            )
    except (ModelError, TimeoutError):
        return None
    text = reply.text.strip()
    return None if is_truncated(reply) or not text else text


def titles(articles: Sequence[Article]) -> str:
    """The articles' titles, a line each."""
    return "\n".join(f"- {article.title}" for article in articles)


def _messages(system: str, profile: Profile, task: str, articles: Sequence[Article]) -> list[AnyMessage]:
    known = [f"{name.replace('_', ' ')}: {value}" for name, value in profile.items() if value is not None]
    found = [
        f"{at}. search_knowledge_base(): {article.title}. {' '.join(article.body.split())}"
        for at, article in enumerate(articles, 1)
    ]
    return [
        SystemMessage(system),
        HumanMessage(task),
        HumanMessage("\n".join(["[What is known of the customer]", *(known or ["nothing"])])),
        HumanMessage("\n".join(["[Help articles that were found]", *found])),
    ]
