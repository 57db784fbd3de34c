"""Words of customers in English, Portuguese and Spanish: tokens, concepts, codes and the language."""

import re
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from core.texts import normalise_text

Language: TypeAlias = Literal["en", "pt", "es"]

MAX_CHARACTERS: Final = 4_000


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_STOP_WORDS: Final = word_set(
    """
    a about again all also am an and any are as at be been but by can could did do does for from get had
    has have help here hi how i if in into is it its just let like me more my need no not now of off on
    once or our out please really right s same she should so some t than that the their them then there
    these they this those to too up us use very want was we were what when where which while who why will
    with would yet you your yes whether tell thing things ao as ate com como da das de dele do dos e ela
    ele em era essa esse esta este eu favor foi ha isso isto ja la lhe mais mas me mesmo meu meus minha
    minhas muito na nao nas nem no nos nosso num o os ou para pela pelo por porque preciso qual quando
    quanto que quem quero se sem ser seu sua sao so tambem te tem ter um uma voce voces cade onde al con
    cual cuando de del donde el ella en es esta estan este hay la las lo los mas mi mis muy ni nuestro o
    para pero por porque que quien quiero se ser si sin sobre son su sus te tiene un una unos usted y ya
    yo necesito
    """
)
# One concept a line, named by its first word, in the three languages. About language, not about any product.
_CONCEPTS: Final = """
order orders pedido pedidos encomenda compra comprei comprar bought buy purchase package parcel paquete
  delivery deliver delivered entrega entregue shipment shipping ship shipped envio enviado enviada
  rastreio tracking arrive arrived llegar chegar chegou
invoice invoices bill bills billing charge charged fatura faturas factura facturas boleto cobranca cobro
  receipt recibo payment payments pay paid pago paga pagada pagar pagamento refund refunded reembolso
plan plans plano planos subscription subscribed assinatura suscripcion renew renews renewal renova
  renovacao trial teste prueba
limit limits limite limites used usage uso
incident incidents outage outages down offline fora caido queda status
error errors erro erros fail fails failed failing falha falhou fallo problem problema broken bug defect
  issue crash
article articles guide howto
contact contacts contato contatos contacto contactos
customer customers client cliente clientes
export exports exporting exported exportar exportacao exportacoes exportacion
import imports importing importar importo importacao importacion
duplicate duplicates duplicado duplicados duplicada merge merging mesclar unir twice
campaign campaigns campanha campanhas campana
template templates modelo modelos plantilla
key keys chave chaves clave token
login log logged password passwords senha contrasena entrar locked
schedule scheduling agendar agendo agenda agendamento programar
person people human agent atendente humano pessoa persona manager gerente responsable supervisor
team teams equipe equipo
conversation conversations conversa conversacion
ticket tickets chamado chamados
rotate rotating renovar trocar troco cambiar
limitation rate
signature signatures assinar firma
rejected refused recusou recusado recusada recusados reject rechazado
spreadsheet planilha excel csv
erase erasure delete deletion excluir exclusao apagar borrar
privacy gdpr lgpd privacidade privacidad
"""
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january janeiro enero", "february fevereiro febrero", "march marco marzo", "april abril",
            "may maio mayo", "june junho junio", "july julho julio", "august agosto",
            "september setembro septiembre", "october outubro octubre", "november novembro noviembre",
            "december dezembro diciembre",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_SMALL_WORDS: Final[dict[Language, frozenset[str]]] = {
    "en": word_set(
        """
    the of and to is that for it with are this be my i you what how where when which please has have do
    our we hi hello thanks thank bye good morning your can want not in on an am
    """
    ),
    "pt": word_set(
        """
    o os um uma de do da dos das que em nao por no na ao mais como foi seu sua ja eu voce meu minha oi
    ola obrigado obrigada bom boa dia tarde noite qual quais onde quero preciso esta tudo bem tchau ate
    cade e com para posso falar me nos muito
    """
    ),
    "es": word_set(
        """
    el los un una de del que en no por la al mas como fue su ya yo usted mi hola gracias buenos buenas
    dias tardes noches cual donde quiero necesito esta todo bien adios hasta es con para puedo hablar me
    las y mucho pedido factura
    """
    ),
}
_MARKS: Final[dict[Language, str]] = {"en": "", "pt": "ãõçâêô", "es": "ñ¿¡"}
_TOKEN: Final = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)?")
_CODE: Final = re.compile(r"\b[A-Za-z]{2,10}-\d[\w-]*\b|\b[A-Za-z]{3}\d{3,}\b|\b\d{3,}\b")


def tokens(text: str) -> list[str]:
    """Return the words of the beginning of a text, folded."""
    return _TOKEN.findall(normalise_text(text[:MAX_CHARACTERS]))


def codes(text: str) -> list[str]:
    """Return identifiers and long numbers as they are written, such as ``ORD-7001``."""
    return list(dict.fromkeys(_CODE.findall(text[:MAX_CHARACTERS])))


def months(text: str) -> list[int]:
    """Return the months a text names, 1 to 12. English "may" counts with a capital letter only."""
    named = [word for word in tokens(text) if word in _MONTHS]
    return [_MONTHS[word] for word in named if word != "may" or "May" in text]


@lru_cache(maxsize=4_096)
def concept(word: str) -> str:
    """Return the concept a word stands for: that of its group, else its stem."""
    return _GROUPS.get(word) or _GROUPS.get(_stem(word)) or _stem(word)


def concepts(text: str) -> list[str]:
    """Return the concepts of a text's content words, in order, without repetition."""
    return list(
        dict.fromkeys(concept(word) for word in tokens(text) if word not in _STOP_WORDS and len(word) > 1)
    )


def key_words(text: str, limit: int = 8) -> list[str]:
    """Return the content words of a text as they are written, for a search."""
    words = re.findall(r"\w[\w-]*", text[:MAX_CHARACTERS])
    kept = [word for word in words if normalise_text(word) not in _STOP_WORDS and len(word) > 1]
    return list(dict.fromkeys(kept))[:limit]


def find_language(*texts: str) -> Language:
    """Return the language of the first text whose small words tell it; English where none does."""
    for text in texts:
        words = tokens(text)
        scores = {
            language: sum(word in small for word in words)
            + 2 * sum(text.lower().count(mark) for mark in _MARKS[language])
            for language, small in _SMALL_WORDS.items()
        }
        best = max(scores, key=lambda language: scores[language])
        if scores[best] and list(scores.values()).count(scores[best]) == 1:
            return best
    return "en"


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:  # noqa: PLR2004 - shorter stems mean nothing
            return word[: -len(ending)]
    return word


def _groups() -> dict[str, str]:
    joined = re.sub(r"\n\s+", " ", _CONCEPTS.strip())
    return {word: line.split()[0] for line in joined.splitlines() for word in line.split()}


_GROUPS: Final = _groups()
