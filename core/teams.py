"""The teams whose people take over a conversation, and what customers read about them."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from core.texts import Language

Team: TypeAlias = Literal["support", "billing", "sales", "success", "marketing", "engineering", "legal"]

# Where a name is missing, customers read the team's own. People of "legal" also handle breaches.
_NAMES: Final[Mapping[str, Mapping[Language, str]]] = {
    "support": {"pt": "suporte", "es": "soporte"},
    "billing": {"pt": "cobrança", "es": "facturación"},
    "sales": {"pt": "vendas", "es": "ventas"},
    "success": {"en": "customer success", "pt": "sucesso do cliente", "es": "éxito del cliente"},
    "engineering": {"pt": "engenharia", "es": "ingeniería"},
    "legal": {
        "en": "privacy and security",
        "pt": "privacidade e segurança",
        "es": "privacidad y seguridad",
    },
}
_HANDED_OVER: Final[Mapping[Language, str]] = {
    "en": "I have passed this on to our {team} team. A colleague will get back to you.",
    "pt": "Encaminhei isso à nossa equipe de {team}. Uma pessoa vai responder a você.",
    "es": "He pasado esto a nuestro equipo de {team}. Una persona le responderá.",
}


def name_team(team: str, language: Language) -> str:
    """Return what a customer reads as the name of a team."""
    return _NAMES.get(team, {}).get(language, team)


def format_handed_over(team: str, language: Language) -> str:
    """Return what a customer reads once the CRM has recorded that a team takes over."""
    return _HANDED_OVER[language].format(team=name_team(team, language))
