"""Retrieval strategies: how the retrievers are weighted for a kind of work, and example messages for each.

Agents name their strategy in their front matter. The weights of ``general`` were fitted on recorded
conversations (``benchmarks/README.md``); the other strategies are defined by how they differ from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

StrategyName: TypeAlias = Literal[
    "general", "support_technical", "sales", "retention", "onboarding", "knowledge"
]
Retriever: TypeAlias = Literal["keyword", "vector", "trigram", "graph", "fact", "recent", "temporal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Weights and limits of one search.

    Attributes:
        keyword: Weight of full-text search.
        vector: Weight of the embeddings' similarity.
        trigram: Weight of names, addresses and numbers, also misspelt ones.
        graph: Weight of what the contact's graph relates to the things that a question names.
        fact: Weight of valid facts that share words with the question.
        recent: Weight of being among the newest messages.
        temporal: Weight of being from the period that a question names, such as "last month".
        retriever_limit: Most candidates of each retriever.
        hops: Edges that the graph retriever follows.
        baseline: Newest messages that are always included.
        half_life_days: Days after which the part of a score that depends on age is halved. ``None``: age does
            not matter.
        age_share: The part of a score that depends on age, from 0 to 1.
        balance_languages: The share, from 0 to 1, of its language's mean by which a vector's score is
            lowered: embedding models find texts in the question's own language nearer.
        rerank: Whether a reranker orders the best hits again.
        token_budget: Most tokens of memory in a prompt.
    """

    keyword: float = 1.0
    vector: float = 0.7
    trigram: float = 0.2
    graph: float = 0.2
    fact: float = 1.0
    recent: float = 0.0
    temporal: float = 0.0
    retriever_limit: int = 100
    hops: int = 2
    baseline: int = 4
    half_life_days: float | None = None
    age_share: float = 0.5
    balance_languages: float = 0.0
    rerank: bool = False
    token_budget: int = 2_000

    def weight(self, retriever: Retriever) -> float:
        """Return the weight of a retriever; one with weight 0 is not used."""
        weights: dict[Retriever, float] = {
            "keyword": self.keyword,
            "vector": self.vector,
            "trigram": self.trigram,
            "graph": self.graph,
            "fact": self.fact,
            "recent": self.recent,
            "temporal": self.temporal,
        }
        return weights[retriever]


_GENERAL: Final = Strategy()

STRATEGIES: Final[Mapping[StrategyName, Strategy]] = MappingProxyType(
    {
        "general": _GENERAL,
        # Error codes, versions and order numbers must match exactly, and recent attempts matter most.
        "support_technical": replace(
            _GENERAL,
            trigram=0.5,
            recent=0.1,
            half_life_days=90,
            age_share=0.3,
            rerank=True,
            token_budget=3_000,
        ),
        # Wishes are worded in many ways, and the graph knows who decides.
        "sales": replace(_GENERAL, vector=1.0, graph=0.4, half_life_days=180, age_share=0.3),
        # Reasons to leave build up over years, so age matters little.
        "retention": replace(
            _GENERAL,
            vector=1.0,
            graph=0.3,
            half_life_days=365,
            age_share=0.2,
            rerank=True,
            token_budget=3_000,
        ),
        # The latest steps decide what comes next.
        "onboarding": replace(
            _GENERAL, recent=0.3, baseline=8, half_life_days=30, age_share=0.5, token_budget=1_500
        ),
        # Help articles do not age, are written in several languages, and name error codes. Words count for
        # less, because only articles in the question's language have them.
        "knowledge": replace(
            _GENERAL,
            keyword=0.3,
            vector=1.0,
            trigram=0.5,
            graph=0.0,
            fact=0.0,
            baseline=0,
            balance_languages=1.0,
        ),
    }
)


# Example messages in both languages of the service, with which a message is compared to choose a strategy.
STRATEGY_EXAMPLES: Final[Mapping[StrategyName, tuple[str, ...]]] = MappingProxyType(
    {
        "general": (
            "Good morning, are you open on Saturday?",
            "What did we talk about last time?",
            "Please change my e-mail address.",
            "Thank you very much, that is all for today.",
            "Bom dia, vocês abrem no sábado?",
            "O que combinamos na última conversa?",
            "Preciso atualizar o meu telefone no cadastro.",
            "Muito obrigado, por hoje é só.",
        ),
        "support_technical": (
            "The export fails with error 500.",
            "The app crashes when I open a contact.",
            "I cannot log in since the update to version 2.3.",
            "The integration does not synchronise any more.",
            "A exportação dá erro 500.",
            "O aplicativo trava quando abro um contato.",
            "Não consigo entrar desde a atualização.",
            "A integração parou de sincronizar.",
        ),
        "sales": (
            "How much is the Enterprise plan for fifty people?",
            "Could you send me a proposal with a discount for the year?",
            "Our budget is twelve thousand dollars, and the CFO decides.",
            "How do you compare with the product of your competitor?",
            "Quanto custa o plano Enterprise para cinquenta pessoas?",
            "Pode me mandar uma proposta com desconto anual?",
            "Nosso orçamento é de sessenta mil e quem decide é a diretora.",
            "O que vocês têm que o concorrente não tem?",
        ),
        "retention": (
            "I want to cancel my subscription.",
            "We are thinking of moving to another provider.",
            "This is the third time you have let us down, I am disappointed.",
            "I do not want the contract to be renewed.",
            "Quero cancelar a minha assinatura.",
            "Estamos pensando em trocar de fornecedor.",
            "É a terceira vez que isso acontece, estou muito insatisfeito.",
            "Não quero renovar o contrato.",
        ),
        "onboarding": (
            "How do I begin? We signed up today.",
            "How do I import my contacts for the first time?",
            "What is the next step to set up our account?",
            "How do I invite my team?",
            "Por onde começo? Assinamos hoje.",
            "Como importo os meus contatos pela primeira vez?",
            "Qual é o próximo passo para configurar a conta?",
            "Como convido a minha equipe?",
        ),
    }
)
