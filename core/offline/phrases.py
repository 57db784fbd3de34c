"""The connecting words of replies, in each language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.texts import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """Templates of one language; braces are filled with what the conversation holds."""

    conjunction: str
    need_to_know: str
    known_so_far: str
    nothing_yet: str
    try_again: str
    will_use: str
    ready: str
    escalating: str
    asked_for: str
    facts: str
    could_not: str
    found_nothing: str
    follow_up: str
    missing: str
    done: str
    plain: str
    said_before: str
    from_request: str
    evidence: str
    no_evidence: str
    reasoning: str
    brought_nothing: str
    no_steps: str
    next_answer: str
    next_check: str
    next_person: str
    none_left: str
    speaks_of: str
    silent_on: str
    add_on: str


PHRASES: Final[dict[Language, Phrases]] = {
    "en": Phrases(
        conjunction="and",
        need_to_know="I need to know more about {topic}.",
        known_so_far="So far: {known}",
        nothing_yet="Nothing on {topic} has been found yet.",
        try_again="I will try {tools} once more.",
        will_use="I will use {tools}.",
        ready="What was found covers {topic}.",
        escalating="Nothing that was found resolves {topic}, so it goes to people who can.",
        asked_for="The request asks for this: {task}.",
        facts="Checked: {facts}.",
        could_not="I could not check {tool}: {fault}",
        found_nothing="Nothing was found about {topic}.",
        follow_up="A person from the team should follow up.",
        missing="To go on, {tool} needs: {fields}.",
        done="Done: {actions}.",
        plain=(
            "The request was: {task}. No language model is configured, so only what tools find can be "
            "answered; set GOOGLE_API_KEY or MODEL to have one."
        ),
        said_before="Said before: {said}",
        from_request="From the request: {said}",
        evidence="Evidence: {evidence}",
        no_evidence="No evidence was found.",
        reasoning="From {tools}: {facts}",
        brought_nothing="{tools}: nothing on this.",
        no_steps="No tool was used; the request is: {task}.",
        next_answer="Answer the customer with what was found",
        next_check="Check another source for {topic}",
        next_person="Hand over to a person",
        none_left="Nothing remains to be done",
        speaks_of="Speaks of {word}",
        silent_on="Says nothing of {word}",
        add_on="Say something of {word}",
    ),
    "pt": Phrases(
        conjunction="e",
        need_to_know="Preciso saber mais sobre {topic}.",
        known_so_far="Até agora: {known}",
        nothing_yet="Ainda não encontrei nada sobre {topic}.",
        try_again="Vou tentar {tools} mais uma vez.",
        will_use="Vou usar {tools}.",
        ready="O que encontrei cobre {topic}.",
        escalating="Nada do que encontrei resolve {topic}; por isso encaminho a quem pode resolver.",
        asked_for="O pedido é este: {task}.",
        facts="Verificado: {facts}.",
        could_not="Não consegui consultar {tool}: {fault}",
        found_nothing="Não encontrei nada sobre {topic}.",
        follow_up="Uma pessoa da equipe deve dar continuidade.",
        missing="Para continuar, {tool} precisa de: {fields}.",
        done="Feito: {actions}.",
        plain=(
            "O pedido foi: {task}. Nenhum modelo de linguagem está configurado; só é possível responder com "
            "o que as ferramentas encontram. Defina GOOGLE_API_KEY ou MODEL para usar um."
        ),
        said_before="Dito antes: {said}",
        from_request="Do pedido: {said}",
        evidence="Evidências: {evidence}",
        no_evidence="Nenhuma evidência foi encontrada.",
        reasoning="De {tools}: {facts}",
        brought_nothing="{tools}: nada sobre isso.",
        no_steps="Nenhuma ferramenta foi usada; o pedido é: {task}.",
        next_answer="Responder ao cliente com o que foi encontrado",
        next_check="Consultar outra fonte sobre {topic}",
        next_person="Encaminhar a uma pessoa",
        none_left="Nada resta a fazer",
        speaks_of="Fala de {word}",
        silent_on="Não fala de {word}",
        add_on="Falar de {word}",
    ),
}


def joined(parts: Sequence[str], conjunction: str) -> str:
    """The parts as a list in a sentence: ``a, b and c``."""
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"
