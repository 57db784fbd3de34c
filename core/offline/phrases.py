"""Fixed sentences and words of the offline model, in the languages it answers in."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from core.offline.words import Language


@dataclass(frozen=True, slots=True)
class Phrases:
    """The sentences of one language; the fields in braces are filled in."""

    greeting: str
    thanks: str
    goodbye: str
    identity: str
    apology: str
    unable: str
    handed_over: str
    article: str
    which: str
    not_found: str
    none_in_month: str
    unavailable: str
    late: str
    of: str
    thought: str


PHRASES: Final[Mapping[Language, Phrases]] = {
    "en": Phrases(
        greeting="Hello! How can I help you?",
        thanks="You're welcome!",
        goodbye="Goodbye, and have a good day!",
        identity="I am an automated assistant. I can look things up for you; say so if you would "
        "rather talk to a person.",
        apology="I am sorry about the trouble.",
        unable="I cannot answer this myself.",
        handed_over="I have passed this on to our {team} team. A colleague will get back to you.",
        article="From our help article “{title}”: {passage}",
        which="I found these; which one do you mean?",
        not_found="I cannot find {code} among your records. Please check the number.",
        none_in_month="I find nothing dated {month}. This is what I see:",
        unavailable="I could not look this up just now.",
        late="That date has passed, so it is late.",
        of="{used} of {limit}",
        thought="I will look this up with {tools}.",
    ),
    "pt": Phrases(
        greeting="Olá! Como posso ajudar?",
        thanks="De nada!",
        goodbye="Até logo, e tenha um bom dia!",
        identity="Sou um assistente automático. Posso consultar informações; diga se preferir "
        "falar com uma pessoa.",
        apology="Sinto muito pelo transtorno.",
        unable="Não consigo responder a isso.",
        handed_over="Encaminhei isso à nossa equipe de {team}. Uma pessoa vai responder a você.",
        article="Do nosso artigo de ajuda “{title}”: {passage}",
        which="Encontrei estes; de qual você fala?",
        not_found="Não encontro {code} nos seus registros. Confira o número, por favor.",
        none_in_month="Não encontro nada com data de {month}. Isto é o que vejo:",
        unavailable="Não consegui consultar isso agora.",
        late="Essa data já passou: está em atraso.",
        of="{used} de {limit}",
        thought="Vou consultar isso com {tools}.",
    ),
    "es": Phrases(
        greeting="¡Hola! ¿En qué puedo ayudarle?",
        thanks="¡De nada!",
        goodbye="¡Hasta luego, y que tenga un buen día!",
        identity="Soy un asistente automático. Puedo consultar información; diga si prefiere "
        "hablar con una persona.",
        apology="Lamento las molestias.",
        unable="No puedo responder a eso.",
        handed_over="He pasado esto a nuestro equipo de {team}. Una persona le responderá.",
        article="De nuestro artículo de ayuda «{title}»: {passage}",
        which="He encontrado estos; ¿a cuál se refiere?",
        not_found="No encuentro {code} entre sus registros. Compruebe el número, por favor.",
        none_in_month="No encuentro nada con fecha de {month}. Esto es lo que veo:",
        unavailable="No he podido consultarlo ahora mismo.",
        late="Esa fecha ya ha pasado: está retrasado.",
        of="{used} de {limit}",
        thought="Voy a consultarlo con {tools}.",
    ),
}

# English, Portuguese, Spanish.
_WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "paid": ("paid", "paga", "pagada"), "open": ("open, not paid yet", "em aberto", "pendiente de pago"),
    "overdue": ("overdue", "vencida", "vencida"), "refunded": ("refunded", "reembolsada", "reembolsada"),
    "delayed": ("delayed", "atrasado", "retrasado"), "delivered": ("delivered", "entregue", "entregado"),
    "processing": ("being processed", "em processamento", "en proceso"),
    "shipped": ("shipped", "enviado", "enviado"), "cancelled": ("cancelled", "cancelado", "cancelado"),
    "active": ("active", "ativo", "activo"),
    "past_due": ("past due", "com pagamento em atraso", "con pago atrasado"),
    "trialing": ("in its trial period", "em período de teste", "en periodo de prueba"),
    "operational": ("operational", "operacional", "operativo"),
    "resolved": ("resolved", "resolvido", "resuelto"),
    "pending": ("pending", "pendente", "pendiente"),
    "status": ("status", "situação", "estado"), "amount": ("amount", "valor", "importe"),
    "due_at": ("due", "vencimento", "vencimiento"), "issued_at": ("issued", "emissão", "emisión"),
    "paid_at": ("paid on", "pagamento", "pagada el"), "expected_at": ("expected", "previsão", "previsto"),
    "placed_at": ("ordered", "pedido feito em", "pedido el"),
    "tracking": ("tracking", "rastreio", "seguimiento"),
    "plan": ("plan", "plano", "plan"), "renews_on": ("renews on", "renovação", "se renueva el"),
    "trial_ends": ("trial ends on", "fim do período de teste", "la prueba termina el"),
    "started_on": ("since", "desde", "desde"), "contacts": ("contacts", "contatos", "contactos"),
    "messages_this_month": ("messages this month", "mensagens neste mês", "mensajes este mes"),
    "automations": ("automations", "automações", "automatizaciones"),
    "seats": ("seats", "usuários", "usuarios"),
    "product_version": ("version", "versão", "versión"),
    "billing_cycle": ("billing", "cobrança", "facturación"),
    "support": ("support", "suporte", "soporte"), "sales": ("sales", "vendas", "ventas"),
    "billing": ("billing", "cobrança", "facturación"),
    "success": ("customer success", "sucesso do cliente", "éxito de clientes"),
    "engineering": ("engineering", "engenharia", "ingeniería"),
    "legal": ("privacy", "privacidade", "privacidad"),
    "due_date": ("due", "vencimento", "vencimiento"),
    "stage": ("stage", "etapa", "etapa"),
    "value": ("value", "valor", "valor"),
}  # fmt: skip
_MONTHS: Final[Mapping[Language, str]] = {
    "en": "January February March April May June July August September October November December",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
}
_ORDER: Final = ("en", "pt", "es")


def translate(word: str, language: Language) -> str:
    """Return the translation of a field's name or value, else the name with spaces."""
    translations = _WORDS.get(word)
    return translations[_ORDER.index(language)] if translations else word.replace("_", " ")


def name_month(month: int, language: Language) -> str:
    """Return the name of a month, 1 to 12."""
    return _MONTHS[language].split()[month - 1]


def format_date(value: date | datetime, language: Language) -> str:
    """Return a date in words."""
    month = name_month(value.month, language)
    if language == "en":
        return f"{value.day} {month} {value.year}"
    return f"{value.day} de {month} de {value.year}"
