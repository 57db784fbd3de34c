"""Read a customer's reply: its language, the replies that need no model, and the schema a model fills in."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import AfterValidator, BaseModel, Field, create_model
from text_to_num import alpha2digit  # type: ignore[attr-defined]  # the package does not list its names

from core.errors import ModelError
from core.models import ChatModels
from core.quantities import index_quantities
from core.texts import Language, detect_language, make_storable, normalise_text
from nodes.onboarding.state import CONFIRMATIONS, SIZES, OnboardingState, Question
from nodes.onboarding.texts import TEXTS
from nodes.shared.prompts import load_prompt
from nodes.shared.steps import READ_REPLY
from nodes.shared.structured import ask_structured, has_language_model

_Aside: TypeAlias = Literal["later", "skip", "question", "handover", "unclear"]
OpenIntent: TypeAlias = Literal["information", _Aside]
PolarIntent: TypeAlias = Literal["yes", "no", _Aside]
Intent: TypeAlias = Literal[OpenIntent, PolarIntent]

# More than all attempts of a model take together, and less than the node's timeout, which would end the run.
CALL_TIMEOUT_SECONDS = 200.0
MAX_SIZE = 10_000_000
# The CRM's limit for an industry.
MAX_TEXT_CHARACTERS = 200
TEXT_FIELDS = ("industry", "use_case", "integration", "first_task")
# One or two words do not show a language: "no" is a word of several.
_MIN_LANGUAGE_WORDS = 3
_MAX_DIGITS: Final = 20
# The largest size that a reply gives without a number: "a dozen", "just me".
_MAX_SIZE_IN_WORDS: Final = 12


def detect_reply_language(locale: str | None, reply: str, previous: Language) -> Language:
    """Return the run's language, else that of the reply, else the previous one."""
    if not locale and len(reply.split()) < _MIN_LANGUAGE_WORDS:
        return previous
    return detect_language(reply, locale, default=previous)


def _join_and_cut(text: str) -> str:
    return " ".join(make_storable(text).split())[:MAX_TEXT_CHARACTERS].rstrip()


Size: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Words: TypeAlias = Annotated[str, AfterValidator(_join_and_cut)]

_SIZE_RULE = (
    "as a whole number: “about fifty” is 50, of a range such as 50-100 the upper end; 0 where it is not said"
)
_FIELDS: Mapping[Question, str] = {
    "company_size": f"How many people work at their company, {_SIZE_RULE}",
    "industry": "The industry of their company in a few words; empty where it is not said",
    "use_case": "What they want to do with the product, in one sentence; empty where it is not said",
    "team_size": f"How many people will use the product, {_SIZE_RULE}",
    "integration": "The other tools they want to connect, by name; empty where none is named",
    "first_task": "What they want to do first with the product, in a few words; empty where it is not said",
}
_COMMON_INTENTS = (
    "later: they want to go on another time, or need more time; skip: they do not want to say; "
    "question: they ask something; handover: they ask for a human; unclear: nothing of this"
)
_OPEN_INTENTS = (
    f"information: they say what was asked for, or other things about themselves; {_COMMON_INTENTS}"
)
_POLAR_INTENTS = f"yes: they agree, it works, it is done; no: they do not agree, it fails; {_COMMON_INTENTS}"


class Reading(BaseModel):
    """What a customer's reply says."""

    intent: Intent
    company_size: Size = 0
    industry: Words = ""
    use_case: Words = ""
    team_size: Size = 0
    integration: Words = ""
    first_task: Words = ""


def build_reading_schema(question: Question | None) -> type[Reading]:
    """Return the schema of a reply to the question, which requires what was asked for.

    No field is nullable: what the reply does not say is 0 or empty.
    """
    polar = question in CONFIRMATIONS
    intent = (
        (PolarIntent, Field(description=_POLAR_INTENTS))
        if polar
        else (OpenIntent, Field(description=_OPEN_INTENTS))
    )
    fields: dict[str, Any] = {
        "intent": intent,
        **{name: _build_field(name, required=name == question) for name in _FIELDS},
    }
    return create_model("Reading", __base__=Reading, __doc__=Reading.__doc__, **fields)


def _build_field(name: Question, *, required: bool) -> tuple[Any, Any]:
    kind: Any = Size if name in SIZES else Words
    description = _FIELDS[name]
    if required:
        return kind, Field(description=description)
    return kind, Field(Reading.model_fields[name].default, description=description)


_PLEASE = r"(?:(?:please|por favor)[, ]*)?"
_END = r"(?:[, ]*(?:please|por favor|thanks|thank you|obrigad[oa]|gracias))?\s*[.!]*"
_SKIP = (
    r"(?:skip|pass|pular|pule|pula|saltar|salte|saltala|omitir|paso)"
    r"(?: (?:it|this|that|this one|this question|isso|esta|essa|esta pergunta|esto|esta pregunta))?"
)
_LATER = (
    r"(?:(?:can|could) we (?:do|finish|continue) (?:this|it) )?"
    r"(?:podemos (?:fazer|ver|continuar) (?:isso|isto) )?"
    r"(?:podemos (?:hacerlo|verlo|seguir|continuar) )?"
    r"(?:later|maybe later|not now|not yet|another time|depois|mais tarde|agora nao|ainda nao|outra hora"
    r"|outro dia|luego|despues|mas tarde|ahora no|todavia no|aun no|en otro momento|otro dia)\s*\??"
)
# Matched against the whole reply, because customers who describe their business also write about people who
# talk to people.
_PERSON = (
    r"(?:(?:(?:i|we)(?: want| need| would like|'d like) to|(?:can|could|may) (?:i|we)|let me|"
    r"(?:eu )?(?:quero|queria|preciso|gostaria de|posso|prefiro)|"
    r"(?:yo )?(?:quiero|quisiera|necesito|me gustaria|puedo|prefiero)) )?"
    r"(?:(?:talk|speak|chat) (?:to|with)|falar com|conversar com|hablar con|conversar con)?\s*"
    r"(?:an? |the |some |um |uma |o |a |algum |alguma |un |una |el |la |algun |alguna )?(?:real )?"
    r"(?:person|human|human being|agent|someone|somebody|representative|pessoa|humano|atendente|alguem"
    r"|persona|agente|asesora?|alguien)"
    r"(?: (?:de verdade|de verdad|real|instead))?\s*\??"
)
# A greeting answers no question.
_HELLO = (
    r"(?=\w)(?:hi|hello|hey|good (?:morning|afternoon|evening)|oi|ola|bom dia|boa tarde|boa noite"
    r"|hola|buenos dias|buenas tardes|buenas noches|buenas)?[,! ]*"
    r"(?:i'?m back|i am back|back again|voltei|estou de volta|he vuelto|estoy de vuelta)?"
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
    r"|si|listo|lista|hecho|vale|perfecto|adelante|sigamos|todo bien|sin problemas?|por supuesto|desde luego"
)
# "Yes, it is connected", but not "yes, but it fails"; read so only where no model reads the reply.
_BEGINS_WITH_YES = re.compile(
    r"(?:yes|yeah|yep|sim)\b(?!.*\b(?:but|not|mas|nao|porem)\b)(?!.*n't)|si\b(?!.*\b(?:pero|no)\b)"
)
# “Not now, I will go on later”; read so only where no model reads the reply.
_BEGINS_WITH_LATER = re.compile(r"(?:not now|later|agora nao|depois|mais tarde|ahora no|luego|mas tarde)\b")
_MAX_LATER_WORDS = 8
_NO = (
    r"no|nope|no,? it (?:does not|doesn't|is not|isn't)|it does not work|it doesn't work"
    r"|nao|nao funciona|no funciona"
)
# As the languages write it: 1200, 1,200 and 1.200.
_NUMBER = r"[0-9]{1,3}(?:[.,][0-9]{3})+|[0-9]+"
# "Some", before a number; as a number word it would be a one.
_SOME = re.compile(r"\b(?:uns|umas|unos|unas)\s+", re.IGNORECASE)
_NOTHING = (
    r"no|none|nothing|no thanks?|no,? none|nao|nenhuma?|nada|nenhuma ferramenta"
    r"|ningun[oa]?|ninguna herramienta"
)


def parse_reply(reply: str, question: Question | None) -> Reading | None:
    """Return what a plain reply says: a command, yes, no or a number; None if a model must read it."""
    text = _fold(reply)
    for pattern, intent in _COMMANDS:
        if re.fullmatch(f"{_PLEASE}(?:{pattern}){_END}", text):
            return Reading(intent=intent)
    if question in CONFIRMATIONS:
        return _parse_confirmation(text)
    if question == "integration" and re.fullmatch(f"(?:{_NOTHING}){_END}", text):
        return Reading(intent="skip")
    if question in SIZES and re.fullmatch(_NUMBER, text):
        return _parse_size(question, text)
    return None


def _parse_confirmation(text: str) -> Reading | None:
    # A number is no yes: it answers another question, if any.
    answers: Mapping[str, Intent] = {_YES: "yes", _NO: "no", _NUMBER: "unclear"}
    found = (intent for words, intent in answers.items() if re.fullmatch(f"(?:{words}){_END}", text))
    return next((Reading(intent=intent) for intent in found), None)


def _fold(reply: str) -> str:
    return " ".join(normalise_text(reply).split()).replace("\u2019", "'").lstrip("\u00bf\u00a1 ")


async def read_with_model(models: ChatModels, state: OnboardingState, model: str | None) -> Reading:
    """Have a model read the state's reply; if it fails, or there is none, take the reply as it is."""
    question, reply = state["question"], state["reply"]
    if not has_language_model(models, model):
        return parse_reply_without_model(reply, question)
    asked = TEXTS[state["language"]].questions[question] if question else "nothing yet: they write first"
    messages = [SystemMessage(load_prompt("onboarding_read").format(asked=asked)), HumanMessage(reply)]
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            reading = await ask_structured(
                models,
                messages,
                build_reading_schema(question),
                step=READ_REPLY,
                model=model,
            )
    except (ModelError, TimeoutError):
        reading = None
    return _remove_unsaid(reading, reply) if reading else parse_reply_without_model(reply, question)


def parse_reply_without_model(reply: str, question: Question | None) -> Reading:
    """Take the only number or the words of a reply, for when no model could read it."""
    is_question = reply.rstrip().endswith("?")
    if not is_question and len(reply.split()) <= _MAX_LATER_WORDS and _BEGINS_WITH_LATER.match(_fold(reply)):
        return Reading(intent="later")
    if question in CONFIRMATIONS and not is_question and _BEGINS_WITH_YES.match(_fold(reply)):
        return Reading(intent="yes")
    if question in SIZES:
        numbers = re.findall(rf"(?<![\w.,-])(?:{_NUMBER})(?![\w-]|[.,]\d)", _write_digits(reply))
        reading = _parse_size(question, numbers[0]) if len(numbers) == 1 else None
        return reading or Reading(intent="unclear")
    if question is None or question in CONFIRMATIONS or is_question:
        return Reading(intent="question" if is_question else "unclear")
    return Reading.model_validate({"intent": "information", question: " ".join(reply.split())})


def _write_digits(reply: str) -> str:
    """Return the reply with its number words as digits: “about fifty people” is “about 50 people”."""
    language = detect_language(reply)
    return str(alpha2digit(_SOME.sub("", reply), language))


def _remove_unsaid(reading: Reading, reply: str) -> Reading:
    """Clear sizes that the reply does not give, and texts that repeat one which gives no information."""
    said = index_quantities(_write_digits(reply))
    cleared: dict[str, int | str] = {
        name: 0
        for name in SIZES
        if (size := getattr(reading, name))
        and not (index_quantities(str(size)) & said if said else size <= _MAX_SIZE_IN_WORDS)
    }
    whole = " ".join(reply.split())
    if reading.intent != "information":
        cleared |= {name: "" for name in TEXT_FIELDS if getattr(reading, name) == whole}
    return reading.model_copy(update=cleared)


def _parse_size(question: Question, digits: str) -> Reading | None:
    number = int(re.sub("[.,]", "", digits[:_MAX_DIGITS]))
    if not 1 <= number <= MAX_SIZE:
        return None
    return Reading.model_validate({"intent": "information", question: number})
