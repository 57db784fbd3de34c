"""Replies that need no model: commands, yes and no, a bare number. Both languages, whichever is spoken."""

import re

from core.texts import normalise_word
from nodes.onboarding.questions import CONFIRMATIONS, SIZES
from nodes.onboarding.reading import MAX_SIZE, Intent
from nodes.onboarding.replies import Reading
from nodes.onboarding.state import Question

_PLEASE = r"(?:(?:please|por favor)[, ]*)?"
_END = r"(?:[, ]*(?:please|por favor|thanks|thank you|obrigad[oa]))?\s*[.!]*"
_SKIP = (
    r"(?:skip|pass|pular|pule|pula)(?: (?:it|this|that|this one|this question|isso|esta|essa|esta pergunta))?"
)
_LATER = (
    r"(?:(?:can|could) we (?:do|finish|continue) (?:this|it) )?"
    r"(?:podemos (?:fazer|ver|continuar) (?:isso|isto) )?"
    r"(?:later|maybe later|not now|not yet|another time|depois|mais tarde|agora nao|ainda nao|outra hora"
    r"|outro dia)\s*\??"
)
# Anchored at the beginning: somebody who describes their business also speaks of people who talk to people.
_PERSON = (
    r"(?:(?:(?:i|we)(?: want| need| would like|'d like) to|(?:can|could|may) (?:i|we)|let me|"
    r"(?:eu )?(?:quero|queria|preciso|gostaria de|posso|prefiro)) )?"
    r"(?:(?:talk|speak|chat) (?:to|with)|falar com|conversar com)?\s*"
    r"(?:an? |the |some |um |uma |o |a |algum |alguma )?(?:real )?"
    r"(?:person|human|human being|agent|someone|somebody|representative|pessoa|humano|atendente|alguem)"
    r"(?: (?:de verdade|real|instead))?\s*\??"
)
# Never an answer to a question.
_HELLO = (
    r"(?=\w)(?:hi|hello|hey|good (?:morning|afternoon|evening)|oi|ola|bom dia|boa tarde|boa noite)?[,! ]*"
    r"(?:i'?m back|i am back|back again|voltei|estou de volta)?"
)
_COMMANDS: tuple[tuple[str, Intent], ...] = (
    (_PERSON, "handover"),
    (_SKIP, "skip"),
    (_LATER, "later"),
    (_HELLO, "unclear"),
)

_YES = (
    r"yes|yep|yeah|sure|ok|okay|done|ready|next|go on|great|perfect|it works|all good|no problems?|of course"
    r"|yes,? it (?:is|does|works)|yes,? i can|sim|claro|pronto|feito|seguir|vamos|podemos|otimo|perfeito"
    r"|beleza|funciona|tudo certo|sem problemas?|com certeza"
)
_NO = r"no|nope|no,? it (?:does not|doesn't|is not|isn't)|it does not work|it doesn't work|nao|nao funciona"
# As both languages write it: 1200, 1,200 and 1.200.
_NUMBER = r"[0-9]{1,3}(?:[.,][0-9]{3})+|[0-9]+"
# Longer than any size that is one.
_LONGEST_NUMBER = 20
_NOTHING = r"no|none|nothing|no thanks?|no,? none|nao|nenhuma?|nada|nenhuma ferramenta"


def literally(reply: str, question: Question | None) -> Reading | None:
    """What the reply says where that is plain from its words; ``None`` where a model must read it."""
    text = " ".join(normalise_word(reply).split()).replace("\u2019", "'")
    for pattern, intent in _COMMANDS:
        if re.fullmatch(f"{_PLEASE}(?:{pattern}){_END}", text):
            return Reading(intent=intent)
    if question in CONFIRMATIONS:
        return _polar(text)
    if question == "integration" and re.fullmatch(f"(?:{_NOTHING}){_END}", text):
        return Reading(intent="skip")
    if question in SIZES and re.fullmatch(_NUMBER, text):
        return _of_size(question, text)
    return None


def in_their_words(reply: str, question: Question | None) -> Reading:
    """The reply taken as it stands, where no model could read it: the only number in it, or its words."""
    if question in SIZES:
        numbers = re.findall(rf"(?<![\w.,-])(?:{_NUMBER})(?![\w-]|[.,]\d)", reply)
        read = _of_size(question, numbers[0]) if len(numbers) == 1 else None
        return read or Reading(intent="unclear")
    if question is None or question in CONFIRMATIONS or reply.rstrip().endswith("?"):
        return Reading(intent="question" if reply.rstrip().endswith("?") else "unclear")
    return Reading.model_validate({"intent": "information", question: " ".join(reply.split())})


def _polar(text: str) -> Reading | None:
    if re.fullmatch(f"(?:{_YES}){_END}", text):
        return Reading(intent="yes")
    return Reading(intent="no") if re.fullmatch(f"(?:{_NO}){_END}", text) else None


def _of_size(question: Question, digits: str) -> Reading | None:
    number = int(re.sub("[.,]", "", digits[:_LONGEST_NUMBER]))
    if not 1 <= number <= MAX_SIZE:
        return None
    return Reading.model_validate({"intent": "information", question: number})
