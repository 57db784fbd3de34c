"""Texts: made safe to store and to put into prompts, normalised for comparison, and their language.

The languages are those that customers are answered in without a model.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Final, Literal, TypeAlias, get_args

# The combining marks of Latin, Greek and Cyrillic, of which U+034F is none.
_COMMON_MARKS: Final = re.compile("[\u0300-\u034e\u0350-\u036f]+")


def make_storable(text: str) -> str:
    """Return the text without NUL and unpaired surrogates, which ``jsonb`` rejects."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def make_printable(text: str) -> str:
    """Return the text with unpaired surrogates, which cannot be sent or stored, replaced by ``?``."""
    return text.encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Return whether Postgres can store the text unchanged."""
    return make_storable(text) == text


def normalise_text(text: str) -> str:
    """Return the text in lower case and without accents."""
    return strip_accents(text).lower()


def strip_accents(text: str) -> str:
    """Return the text without accents, in its own case."""
    if text.isascii():
        return text
    # Most texts are ASCII then, and need not be looked at character by character.
    decomposed = _COMMON_MARKS.sub("", unicodedata.normalize("NFKD", text))
    if decomposed.isascii():
        return decomposed
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def fence(name: str, text: str) -> str:
    """Return the text between ``<name>`` tags; tags of that name inside the text are disarmed."""
    inside = re.sub(rf"<(?=\s*/?\s*{name}\b)", "\u2039", text, flags=re.IGNORECASE)
    return f"<{name}>\n{inside}\n</{name}>"


def join_lines(text: str) -> str:
    """Return the text on one line, so that it cannot imitate other lines of a prompt."""
    return " ".join(text.split())


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of the text, followed by how many were cut."""
    missing = len(text) - limit
    return text if missing <= 0 else f"{text[:limit]}… ({missing} more characters were cut)"


Language: TypeAlias = Literal["en", "pt", "es"]

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Function words, which are frequent in any text, and words with which short messages are written; without
# accents. A word of two languages stands in both lists, one of all three in none.
_SMALL_WORDS: Final[Mapping[Language, frozenset[str]]] = {
    "en": _words(
        """
        the of and to in is that for it with as was were on are this these be my i you your we our us they
        their he she what how where when which who why please has have had do does did can could will would
        should need want help not hi hello hey thanks thank bye good morning am an by at or from if but so
        there about than still never nobody account customer error order invoice yes
        """
    ),
    "pt": _words(
        """
        o os as um uma uns umas de do da dos das em nao por na nas ao aos mais como mas foi era ele ela eles
        elas que seu sua seus suas meu minha meus minhas nosso nossa nossos nossas eu nos voce voces isso
        isto esse essa este esta estou estamos estao tem tenho temos sao ser pode podem posso quero preciso
        precisa qual quais quem onde cade quando quanto muito muita ja ainda ate sem so se para pelo pela
        com e ou tambem agora hoje ontem amanha vai vou ha oi ola obrigado obrigada tchau bom boa dia tarde
        noite tudo bem favor sim ajuda conta fatura erro existe seria algum alguma quantos quantas cliente
        falar alguem ninguem
        """
    ),
    "es": _words(
        """
        el la los las lo un una unos unas de del al en por con y o que su sus mi mis nuestro nuestra
        nuestros nuestras yo usted ustedes tu ella ellos eso esto ese esa este esta estoy estamos estan hay
        he ha han tiene tengo tenemos fue era son ser puede pueden puedo quiero quisiera necesito cual
        cuales quien donde cuando cuanto mas muy mucho mucha ya aun todavia hasta sin se le les para pero
        como tambien ahora hoy ayer manana hola gracias adios buenos buenas dias tardes noches todo bien
        favor si ayuda cuenta factura existe seria algun alguna cuantos cuantas error cliente hablar alguien
        nadie
        """
    ),
}
# Letters and endings that one language alone has; each counts as a word.
_MARKS: Final[Mapping[Language, re.Pattern[str]]] = {
    "en": re.compile(r"(?:n['\u2019]t|['\u2019](?:m|re|ve|ll))\b", re.IGNORECASE),
    "pt": re.compile(r"[ãõçâêô]|(?:cao|coes|nh[ao]s?)\b", re.IGNORECASE),
    "es": re.compile(r"[ñ¿¡]|ci(?:ó|o)n(?:es)?\b", re.IGNORECASE),
}
# Of a text, so much is examined.
_CHARACTERS: Final = 2_000
_WORD: Final = re.compile(r"[a-z0-9]+")
# "com" is a word of Portuguese, but not in an address.
_ADDRESS: Final = re.compile(r"\S*[@/]\S*|\w+(?:\.\w+)+")


def detect_language(text: str, locale: str | None = None, *, default: Language = "en") -> Language:
    """Return the language for fixed texts: of the locale if there is one, else of the text.

    The language of a text is the one whose small words are most frequent at its beginning.

    Args:
        text: What somebody wrote.
        locale: BCP 47 tag. A language without fixed texts means English.
        default: The language when the words do not tell, or tell it as well as another one.
    """
    if locale:
        primary = locale.lower().partition("-")[0]
        return next((language for language in LANGUAGES if language == primary), "en")
    beginning = _ADDRESS.sub(" ", text[:_CHARACTERS])
    words = _WORD.findall(normalise_text(beginning))
    scores = {
        language: sum(word in small for word in words) + len(_MARKS[language].findall(beginning))
        for language, small in _SMALL_WORDS.items()
    }
    best = max(scores.values())
    return default if scores[default] == best else max(LANGUAGES, key=lambda language: scores[language])


_MONTHS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    ),
    "pt": (
        "janeiro", "fevereiro", "março", "abril", "maio", "junho",
        "julho", "agosto", "setembro", "outubro", "novembro", "dezembro",
    ),
    "es": (
        "enero", "febrero", "marzo", "abril", "mayo", "junio",
        "julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre",
    ),
}  # fmt: skip
# The number of a month by its name in any language, in lower case and without accents.
MONTH_NUMBERS: Final[Mapping[str, int]] = {
    normalise_text(name): number for names in _MONTHS.values() for number, name in enumerate(names, start=1)
}


def name_month(month: int, language: Language) -> str:
    """Return the name of a month, 1 to 12."""
    return _MONTHS[language][month - 1]


def format_date(day: date, language: Language) -> str:
    """Format a day as people write it: ``7 May 2023``, ``7 de maio de 2023``, ``7 de mayo de 2023``."""
    month = name_month(day.month, language)
    return f"{day.day} {month} {day.year}" if language == "en" else f"{day.day} de {month} de {day.year}"
