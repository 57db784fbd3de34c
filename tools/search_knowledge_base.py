"""Search the help articles."""

from langchain_core.tools import BaseTool, tool

from tools.crm_client import CrmClient


def search_knowledge_base(crm: CrmClient) -> BaseTool:
    """The tool, over this CRM."""

    @tool("search_knowledge_base", parse_docstring=True)
    async def search(query: str) -> list[dict[str, str]]:
        """Search the help articles for error messages, known limits and how-tos.

        Use it first when a customer reports a problem or asks how something works.

        Args:
            query: Key words of the problem, such as the error message and the feature. Not a sentence.
        """
        found = await crm.search_knowledge_base(query)
        return [article.model_dump(include={"title", "body"}) for article in found.articles[:MAX_ARTICLES]]

    return search


# What a model reads at once; the best match comes first.
MAX_ARTICLES = 3
