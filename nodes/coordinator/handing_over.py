"""A person takes over: what leads there, and what the customer is told."""

from collections.abc import Mapping

from core.texts import Language
from nodes.coordinator.state import Handoff

# Says that the team has it, and that it could not be told.
_RECORDED: Mapping[Language, str] = {
    "en": "I have asked our {team} team to take over from here. A person will write to you in this "
    "conversation.",
    "pt": "Pedi à nossa equipe de {team} que assuma daqui em diante. Uma pessoa vai escrever para você nesta "
    "conversa.",
}
_NOT_RECORDED: Mapping[Language, str] = {
    "en": "A person from our {team} team has to take over from here. I could not reach them just now, so "
    "please write again in a few minutes if nobody has answered you.",
    "pt": "Uma pessoa da nossa equipe de {team} precisa assumir daqui em diante. Não consegui falar com ela "
    "agora, então escreva de novo em alguns minutos se ninguém tiver respondido.",
}
_SORRY: Mapping[Language, str] = {
    "en": "I am sorry, I could not answer this myself. ",
    "pt": "Desculpe, não consegui responder a isso. ",
}
_TEAMS: Mapping[Language, Mapping[str, str]] = {
    "en": {"success": "customer success"},
    "pt": {"support": "suporte", "billing": "cobrança", "sales": "vendas", "success": "sucesso do cliente"},
}


def called(team: str, reason: str) -> Handoff:
    """A person of this team should take over; the CRM does not have it yet."""
    return Handoff(recommended=True, recorded=False, team=team, reason=reason)


def told(language: Language, handoff: Handoff, *, asked_for: bool) -> str:
    """What the customer is told.

    Args:
        language: Theirs.
        handoff: To whom, and whether the CRM has it.
        asked_for: Whether a rule leads there, such as their own wish, and not a failure of ours.
    """
    sentence = (_RECORDED if handoff["recorded"] else _NOT_RECORDED)[language]
    team = _TEAMS[language].get(handoff["team"], handoff["team"])
    return ("" if asked_for else _SORRY[language]) + sentence.format(team=team)
