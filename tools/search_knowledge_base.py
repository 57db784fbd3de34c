"""Search the help articles."""

from collections.abc import Sequence
from typing import Annotated, Final

from langchain_core.tools import BaseTool, InjectedToolArg, tool

from core.memory import STRATEGIES, StrategyName
from tools.crm.client import CrmClient
from tools.crm.models import Article
from tools.execution import CallContext


def search_knowledge_base(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM.

    The CRM finds the articles; the calling agent's retrieval strategy has a say in which come first.
    """

    @tool("search_knowledge_base", parse_docstring=True)
    async def search(
        query: str, context: Annotated[CallContext | None, InjectedToolArg] = None
    ) -> list[dict[str, str]]:
        """Search the help articles for error messages, known limits and how-tos.

        Use it first when a customer reports a problem or asks how something works.

        Args:
            query: Key words of the problem, such as the error message and the feature. Not a sentence.
            context: Given by the run.
        """
        found = await crm.search_knowledge_base(query)
        ranked = by_strategy(found.articles, query, context.strategy if context else "general")
        return [article.model_dump(include={"title", "body"}) for article in ranked[:MAX_ARTICLES]]

    return search


# What a model reads at once; the best match comes first.
MAX_ARTICLES = 3
# Of reciprocal rank fusion (Cormack et al. 2009).
_K: Final = 60


def by_strategy(articles: Sequence[Article], query: str, strategy: StrategyName) -> list[Article]:
    """The CRM's order and the order by numbers and codes in common, fused by reciprocal rank.

    The CRM's ranking counts as the strategy counts full text; what a query's numbers and codes name counts
    as the strategy counts identifiers, so that "Error 500" comes before "Error 404" where that matters.
    """
    weights = STRATEGIES[strategy]
    codes = {word for word in query.lower().split() if any(character.isdigit() for character in word)}

    def named(article: Article) -> int:
        return sum(code in f"{article.title} {article.body}".lower() for code in codes)

    order = sorted(range(len(articles)), key=lambda place: (-named(articles[place]), place))
    by_code = {place: rank for rank, place in enumerate(order) if named(articles[place])}

    def score(place: int) -> float:
        identified = weights.trigram / (_K + by_code[place]) if place in by_code else 0.0
        return weights.keyword / (_K + place) + identified

    return [
        articles[place] for place in sorted(range(len(articles)), key=lambda place: (-score(place), place))
    ]
