"""Fields: what a property of a schema is for, told from its name and description."""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from core.offline.words import tokens

Kind: TypeAlias = Literal[
    "query", "headline", "message", "description", "reason", "next", "request", "expression",
    "identifier", "email", "url", "phone", "date", "name", "other",
]  # fmt: skip

_NAMES: Final[dict[Kind, str]] = {
    "query": "query q search question term terms keyword keywords topic busca consulta pergunta phrase",
    "headline": "title subject summary headline label titulo assunto resumo heading",
    "message": (
        "message solution content text answer reply response body comment note output result mensagem "
        "resposta solucao conteudo texto draft conclusion"
    ),
    "description": (
        "description details detail context problem notes evidence descricao detalhes findings issue"
    ),
    "reason": (
        "reasoning reason rationale why analysis explanation justification thought thoughts feedback "
        "critique observation motivo justificativa analise"
    ),
    "next": "action step suggestion recommendation acao passo",
    "request": "task request input instruction goal objective prompt tarefa pedido objetivo",
    "expression": "expression formula calculation expressao",
    "identifier": "id identifier key code number ref reference uuid sku codigo numero",
    "email": "email mail recipient recipients to cc",
    "url": "url uri link href website",
    "phone": "phone telephone mobile telefone celular",
    "date": "date day datetime time timestamp deadline data dia hora when",
    "name": "name city company country place location person owner assignee nome cidade empresa",
}
_KINDS: Final[dict[str, Kind]] = {word: kind for kind, words in _NAMES.items() for word in words.split()}
_FORMATS: Final[dict[str, Kind]] = {
    "email": "email",
    "uri": "url",
    "url": "url",
    "uuid": "identifier",
    "date": "date",
    "date-time": "date",
    "time": "date",
}
_DESCRIBED: Final[tuple[tuple[str, Kind], ...]] = (
    (r"\b(?:keywords?|search for|words to|to look up|palavras)\b", "query"),
    (r"\b(?:message|answer|reply|solution|text|resposta|mensagem)\b", "message"),
    (r"\b(?:why|reason|because|por que|motivo)\b", "reason"),
    (r"\b(?:title|short|headline|one line)\b", "headline"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a schema to fill.

    Attributes:
        name: The property's name; a list's items have the list's.
        description: What the schema says about it.
        required: Whether it must be there.
        format: The schema's ``format``.
        pattern: The schema's ``pattern``.
        item: Position among a list's items; ``None`` outside lists.
        parent: Name of the object's own field.
    """

    name: str = ""
    description: str = ""
    required: bool = True
    format: str = ""
    pattern: str = ""
    item: int | None = None
    parent: str = ""

    @property
    def words(self) -> list[str]:
        """The name's words."""
        return tokens(self.name)

    @property
    def kind(self) -> Kind:
        """What it is for: said by the format, else the name's last telling word, else the description."""
        if self.format in _FORMATS:
            return _FORMATS[self.format]
        words = self.words
        if "next" in words:
            return "next"
        named = next((_KINDS[word] for word in reversed(words) if word in _KINDS), None)
        if named:
            return named
        return next(
            (kind for pattern, kind in _DESCRIBED if re.search(pattern, self.description.lower())), "other"
        )
