"""What customers say where each retrieval strategy serves best: examples that a message is compared with.

They are data, in the two languages of the service. What is like none of them is searched for by ``general``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from core.memory.strategies import StrategyName

EXAMPLES: Final[Mapping[StrategyName, tuple[str, ...]]] = MappingProxyType(
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
