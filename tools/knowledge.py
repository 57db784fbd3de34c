"""Tools that look up what the company knows: its help articles and the status of its platform."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.memory import STRATEGIES, StrategyName
from tools.crm.client import CrmClient
from tools.crm.models import Article
from tools.execution import CallContext

# What a model is shown: the best articles and the latest incidents.
MAX_ARTICLES = 3
MAX_INCIDENTS = 3
# The constant k of reciprocal rank fusion (Cormack et al. 2009).
_RANK_CONSTANT: Final = 60


def search_knowledge_base_tool(crm: CrmClient) -> BaseTool:
    """Return the tool; the CRM finds the articles and the calling agent's retrieval strategy ranks them."""

    @tool(parse_docstring=True)
    async def search_knowledge_base(
        query: str, context: Annotated[CallContext | None, InjectedToolArg] = None
    ) -> list[dict[str, str]]:
        """Search the help articles for error messages, known limits and how-tos.

        Use it first when a customer reports a problem or asks how something works.

        Args:
            query: Key words of the problem, such as the error message and the feature. Not a sentence.
            context: Given by the run.
        """
        articles = (await crm.search_knowledge_base(query)).articles
        ranked = rank_articles(articles, query, context.strategy if context else "general")
        return [article.model_dump(include={"title", "body"}) for article in ranked[:MAX_ARTICLES]]

    return search_knowledge_base


def rank_articles(articles: Sequence[Article], query: str, strategy: StrategyName) -> list[Article]:
    """Fuse the CRM's order with the order by shared numbers and codes, by reciprocal rank.

    The CRM's order has the strategy's weight of full text; the order by the query's numbers and codes has
    its weight of identifiers, so that "Error 500" comes before "Error 404" where that matters.
    """
    weights = STRATEGIES[strategy]
    codes = {word for word in query.lower().split() if any(character.isdigit() for character in word)}

    def count_codes(article: Article) -> int:
        return sum(code in f"{article.title} {article.body}".lower() for code in codes)

    counts = [count_codes(article) for article in articles]
    by_code = sorted(range(len(articles)), key=lambda position: (-counts[position], position))
    code_rank = {position: rank for rank, position in enumerate(by_code) if counts[position]}

    def score(position: int) -> float:
        by_identifier = (
            weights.trigram / (_RANK_CONSTANT + code_rank[position]) if position in code_rank else 0.0
        )
        return weights.keyword / (_RANK_CONSTANT + position) + by_identifier

    order = sorted(range(len(articles)), key=lambda position: (-score(position), position))
    return [articles[position] for position in order]


def check_service_status_tool(crm: CrmClient) -> BaseTool:
    """Return the tool over this CRM."""

    @tool(parse_docstring=True)
    async def check_service_status() -> dict[str, Any]:
        """Check whether an incident or outage of the platform explains an error the customer reports.

        Use it to diagnose errors and slowness before you blame the customer's data.
        """
        status = await crm.get_status()
        return {
            "status": status.status,
            "components": {component.name: component.status for component in status.components},
            "recent_incidents": [
                incident.model_dump(exclude_none=True) for incident in status.incidents[:MAX_INCIDENTS]
            ],
        }

    return check_service_status
