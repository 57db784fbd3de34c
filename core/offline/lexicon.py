"""General vocabulary of support and sales, English and Portuguese: words that mean much the same.

The groups are about language, not about any product: they let a request in one language match a
description in the other, and a verb match its synonyms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.texts import Language


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


STOP_WORDS: Final = word_set(
    """
    many much may might still yet since yesterday today tomorrow whenever always never ever
    desde ontem hoje amanha sempre nunca deste desta neste nesta fui veio vem fica ficou vez
    a about above after again all also am an and any are as at be because been before being below
    between both but by can cannot could did do does doing don down during each few for from further had
    has have having he her here hers him his how i if in into is it its just ll me more most my need no
    nor not now of off on once only or other our out over own per please re s same she should so some
    such t than that the their them then there these they this those through to too try trying tried
    tries under until up us use used using ve very want wants was we were what when where which while
    who whom why will with would you your via when within ao aos aquela aquele as ate com como da das de
    dela dele deles depois do dos e ela ele eles em entre era essa esse esta estao estar estas este
    estes estou eu favor foi foram ha isso isto ja la lhe mais mas me mesmo meu meus minha minhas muito
    na nao nas nem no nos nossa nosso num numa o os ou para pela pelas pelo pelos por porque preciso
    qual quando quanto que quem quer quero se sem ser seu seus sua suas sao so tambem te tem tenho ter
    tento tentar tentando toda todo todos tu um uma umas uns usar voce voces
    """
)

# The first word of a group names it. A word belongs to one group only.
GROUPS: Final = tuple(
    """
    create open add register raise file insert new criar abrir adicionar registrar cadastrar crie abra
    create novo nova
    send forward deliver enviar mandar encaminhar envie mande
    answer reply respond response tell inform notify resposta responder informar avisar responda informe
    answer avise
    update change edit modify set rename atualizar alterar mudar editar atualize altere mude modificar
    delete remove erase excluir remover apagar deletar exclua remova apague
    cancel cancellation cancelar cancelamento cancele
    schedule book arrange agendar marcar agende marque agendamento
    report escalate escalation reportar escalar relatar reporte escale
    resolve solve solution fix repair solucao solucoes resolver solucionar corrigir consertar resolva
    resolve corrija
    help assist assistance support ajuda ajudar ajude suporte
    explain clarify explicar explique esclarecer
    assign atribuir atribua
    refund reimburse reembolso reembolsar estorno estornar
    diagnose diagnosis investigate diagnosticar diagnostico investigar diagnostique investigue
    check verify verificar checar conferir verifique
    find search locate buscar procurar encontrar pesquisar busca
    error erro freeze hang stuck broken travar congelar quebrado
    error fail failure fault crash falha falhar falhou falhando erros
    problem issue trouble difficulty problema dificuldade
    bug defect defeito
    outage incident downtime interruption incidente interrupcao queda
    ticket chamado
    engineering engineer engineers engenharia engenheiro
    customer client cliente clientes
    user usuario
    account conta
    contact contato contatos
    company organization empresa organizacao
    lead prospect prospecto
    deal opportunity negocio oportunidade
    invoice bill billing charge charged fatura cobranca cobrar cobrado cobrada boleto faturamento
    invoice faturas
    payment pay paid pagamento pagar pago
    price pricing cost preco custo precos valor amount
    plan subscription plano assinatura planos
    discount desconto
    contract contrato
    quote proposal orcamento proposta cotacao
    order pedido
    delivery shipping shipment entrega envio frete
    product produto
    version versao
    limit quota limite cota limites
    usage consumption consumo uso
    export exportar exportacao exportacoes exporto exportando
    import importar importacao importacoes
    integration integrate integracao integrar integracoes
    report_document relatorio relatorios
    document attachment arquivo documento anexo
    password credential senha
    login signin logon entrar acesso access acessar
    email mail e-mail correio
    phone telephone telefone celular
    address endereco
    name nome
    date data
    meeting appointment call reuniao compromisso chamada
    message mensagem
    note annotation nota anotacao
    task todo tarefa
    status state estado situacao
    service servico
    article artigo
    history past earlier previous historico anterior anteriores
    slow slowness lento lentidao demorado
    request solicitacao solicitar requisicao
    record registro registros
    batch lote lotes
    month monthly mes mensal meses
    year annual yearly ano anual
    day daily dia diario
    week weekly semana semanal
    urgent urgente urgency urgencia
    duplicate duplicado duplicada duplicar twice
    settings configuration configure configuracao configurar configuracoes
    sale sales venda vendas
    question pergunta duvida
    deadline due prazo vencimento
    upgrade increase aumentar aumento
    human person agent humano pessoa atendente
    """.strip().splitlines()
)

# Words of nearly every request: they say what to do with it, not what it is about.
GENERAL_WORDS: Final = word_set(
    """
    write draft prepare compose morning afternoon evening good nice amount
    customer user help resolve diagnose report answer send explain check find problem question request
    please tell know say ask show give get see want reports says wrong thank thanks hello hi team let
    make dizer saber perguntar mostrar dar ver obrigado obrigada ola oi equipe gostaria bom boa tarde
    consegue consigo conseguir
    """
)

READING_VERBS: Final = word_set(
    """
    search get check list find lookup look read recall fetch query calculate compute show view describe
    inspect retrieve load count compare browse diagnose verify lookup estimate convert summarize analyze
    explain buscar consultar listar verificar procurar ler obter calcular ver pesquisar mostrar checar
    """
)

FAULT_WORDS: Final = frozenset({"error", "problem", "bug", "outage", "slow"})
DELIVERY_VERBS: Final = frozenset({"send", "answer", "message", "email"})
DELIVERY_OBJECTS: Final = frozenset({"resolve", "answer", "message", "customer", "user", "email"})
DELIVERY_REQUESTS: Final = frozenset({"resolve", "answer", "send", "help", "explain", "message", "email"})
ACTION_REQUESTS: Final = word_set("create send update delete cancel schedule report assign refund")
EFFECT_REQUESTS: Final = DELIVERY_REQUESTS | ACTION_REQUESTS
ESCALATION_VERBS: Final = frozenset({"create", "report"})
ESCALATION_OBJECTS: Final = frozenset(
    {"ticket", "bug", "engineering", "report", "outage", "human", "problem"}
)

# Words of sentences that say what to do or what holds at most.
INSTRUCTION_WORDS: Final = word_set(
    """
    must should use required require maximum most least limit instead recommended split exceed only up
    never always deve devem utilize maximo minimo limite necessario recomendado evite divida
    """
)

SEVERE_WORDS: Final = word_set(
    """
    outage down urgent critical emergency everyone everybody breach loss blocked production urgente
    critico critica emergencia parado parada indisponivel
    """
)
FAILING_WORDS: Final = word_set(
    """
    error fail failed failing fails failure cannot unable crash broken erro falha falhou quebrado
    impossivel
    """
)
AFFIRMING_WORDS: Final = word_set(
    """
    yes yeah yep sure ok okay right agreed done ready finished works working worked connected great good
    perfect sim claro certo pronto pronta feito feita funciona funcionando funcionou conectado conectada
    otimo bom perfeito beleza consigo consegui
    """
)

# Severity-like scales, least first; an enumeration is one when all its values are here.
SCALE: Final[dict[str, int]] = {
    "none": 0,
    "trivial": 0,
    "info": 0,
    "minimal": 0,
    "low": 1,
    "minor": 1,
    "baixa": 1,
    "baixo": 1,
    "medium": 2,
    "moderate": 2,
    "normal": 2,
    "media": 2,
    "medio": 2,
    "average": 2,
    "high": 3,
    "major": 3,
    "alta": 3,
    "alto": 3,
    "severe": 3,
    "critical": 4,
    "urgent": 4,
    "blocker": 4,
    "highest": 4,
    "critica": 4,
    "critico": 4,
    "urgente": 4,
}


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


def join_phrases(parts: Sequence[str], conjunction: str) -> str:
    """Return the parts as a list in a sentence: ``a, b and c``."""
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"
