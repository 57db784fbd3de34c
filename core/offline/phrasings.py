"""How people say what they are, have and use, in English and Portuguese: the rules of the fact extractor.

They are for sentences with their contractions spelled out (``we are``). In a rule, group ``o`` is the value,
and where group ``us`` matches it is said of the company. ``{NAME}``, ``{PLACE}`` and so on stand for values,
``{NOW}`` for words of no weight. Rules are in the first person: what others do is not the writer's.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["states", "changes", "corrects", "ends"]

_PARTS: Final = {
    "NAME": r"(?:(?i:the|o|a)\s+)?(?P<o>[A-ZÀ-Ý0-9][\w'+-]*(?:\.\w+)*(?:\s+[A-ZÀ-Ý0-9][\w'+-]*(?:\.\w+)*)*)",
    "PLACE": r"(?P<o>[A-ZÀ-Ý][\w'-]+(?:\s+(?:d[aeo]s?\s+)?[A-ZÀ-Ý][\w'-]+)*)",
    "COUNT": r"(?P<o>\d{1,3}(?:[.,]\d{3})+|\d+)",
    "EMAIL": r"(?P<o>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)",
    "PHONE": r"(?P<o>\+?\d[\d ()-]{5,}\d)",
    "MONEY": r"(?P<o>(?:[$€£]|R\$)?\s?\d[\d.,]*\s?(?:k\b|[$€£]|(?i:euros?|reais|dollars))?)",
    "PLAN": r"(?P<o>[A-ZÀ-Ý]\w*)",
    "CHANNEL": r"(?P<o>(?i:e-?mail|phone|telefone|whatsapp|sms|telegram))\b",
    "PEOPLE": r"(?i:people|employees|persons|staff|of us|pessoas|funcion[aá]rios|colaboradores|empregados)\b",
    "NOW": r"(?:\s+(?:have|now|currently|already|recently|just|also|only|about|around|over|some|today|back"
    r"|agora|hoje|j[aá]|atualmente|cerca de|quase|uns|umas|tamb[eé]m))*",
    "MY": r"(?:my|o meu|meu|(?P<us>our|o nosso|nosso))(?:\s+(?:new|novo))?",
    "ROLE": r"(?P<o>C[EFIMOT]O\b|(?i:(?:head of|diretora? d[eoa]|gerente d[eoa]) \w+"
    r"|\w+ (?:manager|director)|owner|founder|accountant|don[oa]|contabilista)\b)",
    "SWITCHED": r"(?:we|i){NOW} (?:switched|migrated|moved) from|troc[aá]mos|mud[aá]mos d[oa]",
    "TO": r"(?i:to|pelo|pela|para [oa])",
    "IS": r"(?:\s+(?:is|changed to|é|passou a ser|mudou para)|:)",
}

_PART: Final = re.compile(r"\{([A-Z]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A turn of phrase, and what it says; no subject: the writer, or their company where ``us`` matches."""

    predicate: str
    form: re.Pattern[str]
    subject: str
    kind: Kind


def _rule(predicate: str, words: str, value: str, *, subject: str = "", kind: Kind = "states") -> Rule:
    """Words are found in any case; a value has its own."""
    return Rule(predicate, re.compile(_spelled(rf"(?<!\w)(?i:{words})\s+{value}")), subject, kind)


def _spelled(form: str) -> str:
    """The form with its parts, and theirs, in place of their names."""
    while _PART.search(form):
        form = _PART.sub(lambda found: _PARTS[found[1]], form)
    return form


RULES: Final = (
    _rule(
        "company_size",
        r"we (?:are|have|employ|grew to|have grown to){NOW}|our (?:team|company) (?:is|has){NOW}"
        r"|(?:somos|temos|estamos com|crescemos para|pass[aá]mos a ser){NOW}",
        r"{COUNT}\s+{PEOPLE}",
        subject="company",
    ),
    _rule(
        "city",
        r"(?:i|(?P<us>we)){NOW} (?:moved|relocated){NOW} to"
        r"|(?:me\s+)?mudei(?:-me)?{NOW} (?:para|pra)(?: [oa])?"
        r"|(?P<us2>(?:nos\s+)?mud[aá]mo(?:s|-nos)){NOW} (?:para|pra)(?: [oa])?",
        r"{PLACE}(?!\s+(?i:plan|tier|team|version|department))",
        kind="changes",
    ),
    _rule(
        "city",
        r"(?:i|(?P<us>we)){NOW} live{NOW} in|(?:i am|(?P<us2>we are)){NOW} based in"
        r"|(?<!não )(?<!nao )(?:moro|vivo|estou a viver|estou a morar){NOW} (?:em|no|na)",
        "{PLACE}",
    ),
    _rule(
        "city",
        r"i (?:no longer|do not) live in|j[aá] n[aã]o (?:moro|vivo) (?:em|no|na)",
        "{PLACE}",
        kind="ends",
    ),
    _rule("email", r"{MY} e-?mail(?: address)?{IS}{NOW}", "{EMAIL}"),
    _rule(
        "phone",
        r"{MY} (?:(?:phone|mobile)(?: number)?|number|telefone|telem[oó]vel|celular|n[uú]mero){IS}{NOW}",
        "{PHONE}",
    ),
    _rule(
        "preferred_channel",
        r"i prefer(?: to be (?:contacted|reached) (?:by|on|via))?|prefiro(?: ser contactad[oa] por)?",
        "{CHANNEL}",
        subject="contact",
    ),
    _rule(
        "name", r"my name is|i am called|(?:o )?meu nome é|chamo-me|me chamo", "{PLACE}", subject="contact"
    ),
    _rule(
        "employer",
        r"i{NOW} work{NOW} (?:at|for)|(?:i|and){NOW} joined"
        r"|(?<!não )(?<!nao )trabalho{NOW} (?:na|no|para(?: [oa])?)",
        "{NAME}",
        subject="contact",
    ),
    _rule(
        "employer",
        r"i{NOW} left|i no longer work (?:at|for)|sa[ií] d[ao]|j[aá] n[aã]o trabalho (?:na|no)",
        "{NAME}",
        subject="contact",
        kind="ends",
    ),
    _rule("role", r"(?:i am|sou){NOW} (?:the|o|a)(?: new)?", "{ROLE}", subject="contact"),
    _rule("plan", r"(?:we are|i am|estamos|estou){NOW} (?:on the|no plano)", r"{PLAN}\b", subject="company"),
    _rule(
        "plan",
        r"(?:we|i){NOW} (?:upgraded|downgraded|switched|moved|changed) to the",
        r"{PLAN}\s+(?i:plan)\b",
        subject="company",
        kind="changes",
    ),
    _rule(
        "plan",
        r"(?:mud[aá]mos|mudei|pass[aá]mos|passei) para o plano",
        "{PLAN}",
        subject="company",
        kind="changes",
    ),
    _rule(
        "budget",
        r"(?:our|my|o nosso|nosso|o meu) (?:budget|orçamento) (?:is|é){NOW}(?: de)?",
        "{MONEY}",
        subject="company",
    ),
    _rule(
        "uses",
        r"(?:we|i){NOW} (?:use|started using)|come[cç][aá]mos a usar|(?<!não )(?<!nao )usamos{NOW}",
        r"{NAME}(?!.*(?i:any ?more))",
        subject="company",
    ),
    _rule(
        "uses",
        r"(?:we|i){NOW} (?:no longer use|stopped using)"
        r"|j[aá] n[aã]o usamos|deix[aá]mos de usar|n[aã]o usamos mais",
        "{NAME}",
        subject="company",
        kind="ends",
    ),
    _rule(
        "uses",
        r"(?:we|i) do not use",
        r"{NAME}\s+(?i:any ?more|any longer)",
        subject="company",
        kind="ends",
    ),
    _rule("uses", "{SWITCHED}", r"{NAME}(?=\s+{TO}\s+[A-ZÀ-Ý0-9])", subject="company", kind="ends"),
    _rule("uses", "{SWITCHED}", r"[^,.;]+?\s+{TO}\s+{NAME}", subject="company", kind="changes"),
)
