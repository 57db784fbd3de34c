"""What tickets are about, told by their words: data, so that a graph relates tickets in both languages.

A topic's words are beginnings of words, in lower case and without accents.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from core.texts import normalise_text

TOPICS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "export": ("export", "download", "baixar"),
        "import": ("import", "upload", "planilha", "spreadsheet"),
        "login": ("login", "log in", "sign in", "password", "senha", "two-factor", "sso", "saml", "entrar"),
        "billing": ("billing", "invoice", "payment", "charge", "refund", "boleto", "fatura", "cobranca",
                    "pagamento", "reembolso", "nota fiscal"),
        "campaigns": ("campaign", "campanha", "newsletter"),
        "whatsapp": ("whatsapp",),
        "e-mail": ("email", "e-mail", "spam", "outlook", "gmail"),
        "api": ("api", "webhook", "rate limit"),
        "integrations": ("integrat", "integrac", "shopify", "zapier", "google sheets", "sync", "sincroni"),
        "automations": ("automation", "automac", "workflow"),
        "performance": ("slow", "lento", "lentid", "timeout", "freez", "trava"),
        "duplicates": ("duplica",),
        "privacy": ("gdpr", "lgpd", "privac", "consent"),
        "plan": ("plan ", "plano", "upgrade", "downgrade", "subscription", "assinatura", "limit"),
    }
)  # fmt: skip
_TOPIC_WORDS: Final = {
    topic: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})") for topic, words in TOPICS.items()
}


def topics_of(text: str) -> tuple[str, ...]:
    """The topics whose words a text has."""
    plain = normalise_text(text)
    return tuple(topic for topic, words in _TOPIC_WORDS.items() if words.search(plain))
