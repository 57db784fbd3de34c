"""Vocabulary: predicates and relations that have one value at a time, and the topics of tickets.

Predicates and relations that are not listed here may have several values at a time. That is the careful
default: two values side by side mislead less than a correct one that was closed by mistake.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from core.texts import normalise_text

_NOT_A_NAME: Final = re.compile(r"[^\w]+")

# With their meanings, which are part of the prompt that extracts facts.
SINGLE_VALUED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "name": "what the subject is called",
        "email": "e-mail address",
        "phone": "telephone number",
        "address": "street address",
        "city": "town where the subject lives or is",
        "country": "country where the subject lives or is",
        "language": "language to be spoken to in",
        "time_zone": "time zone",
        "birthday": "date of birth",
        "role": "position at work",
        "employer": "company worked for",
        "company_size": "number of people, as a number alone",
        "industry": "line of business",
        "website": "web address",
        "plan": "plan subscribed to",
        "budget": "money there is for it",
        "deadline": "when it must be done",
        "preferred_channel": "how the subject wants to be reached",
    }
)
MULTI_VALUED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "uses": "product or service in use",
        "needs": "what is needed",
        "likes": "what is liked",
        "dislikes": "what is disliked",
        "interested_in": "what there is interest in",
        "has_problem": "what does not work",
    }
)
SINGLE_VALUED_RELATIONS: Final = frozenset({"ASSIGNED_TO", "ON_PLAN", "OWNED_BY", "WORKS_AT", "REPORTS_TO"})


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Names that have one value at a time.

    Attributes:
        predicates: Predicates of facts.
        relations: Types of edges, of which a source node has one at a time.
    """

    predicates: frozenset[str] = field(default=frozenset(SINGLE_VALUED))
    relations: frozenset[str] = SINGLE_VALUED_RELATIONS


def normalise_predicate(text: str) -> str:
    """Return a predicate as it is stored: ``Company size`` becomes ``company_size``."""
    return _NOT_A_NAME.sub("_", text.casefold()).strip("_")


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


def find_topics(text: str) -> tuple[str, ...]:
    """Return the topics whose words occur in a text."""
    plain = normalise_text(text)
    return tuple(topic for topic, words in _TOPIC_WORDS.items() if words.search(plain))
