"""The fixed texts for the customer, in each language."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.texts import Language
from nodes.onboarding.state import Question, Status, StepName, StepStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of one language; braces are placeholders."""

    hello: str
    hello_named: str
    introduction: str
    welcome_back: str
    questions: Mapping[Question, str]
    unusable: str
    first_steps: str
    plain_tour: str
    no_tour: str
    plain_guide: str
    no_guide: str
    task_started: str
    help_out: str
    plain_answer: str
    no_answer: str
    completed: str
    completed_followed_up: str
    already_completed: str
    paused: str
    handed_over: str
    already_handed_over: str
    not_saved: str
    saved_again: str
    summary: str
    statuses: Mapping[Status, str]
    nothing_known: str
    steps: Mapping[StepName, str]
    step_statuses: Mapping[StepStatus, str]
    fields: Mapping[Question, str]


TEXTS: Mapping[Language, Texts] = {
    "en": Texts(
        hello="Welcome!",
        hello_named="Welcome, {name}!",
        introduction=(
            "A few questions, a short tour, your integrations, and you are set. You can say “skip”, “later” "
            "or “person” at any time, or ask me something."
        ),
        welcome_back="Welcome back! Let us continue where we stopped.",
        questions={
            "company_size": "How many people work at your company?",
            "industry": "Which industry are you in?",
            "use_case": "What would you like to use our product for?",
            "team_size": "How many people in your team will use it?",
            "tour": "Have a look at these, and ask me anything. Shall we continue with your integrations?",
            "integration": "Which other tools would you like to connect, if any?",
            "connected": "Is it connected and working by now?",
            "first_task": "What would you like to do first, for example import your contacts?",
            "success": "Last one: can you now do what you came for?",
        },
        unusable="Sorry, I did not understand that.",
        first_steps="import contacts, campaigns, integrations",
        plain_tour="These help articles fit what you want to do:\n{articles}",
        no_tour="At the moment I have no help article on what you want to do, so we continue without a tour.",
        plain_guide="These help articles explain how to set it up:\n{articles}",
        no_guide="At the moment I have no help article on setting that up. If you get stuck, say “person”.",
        task_started="Good choice. A colleague will ask you in two days how it went.",
        help_out="Let us look at that together.",
        plain_answer="I cannot answer that myself right now. These help articles are about it:\n{articles}",
        no_answer="I have no help article on that at the moment. Say “person” and a colleague takes over.",
        completed="That completes your onboarding.",
        completed_followed_up="That completes your onboarding. In a week we will ask you how it goes.",
        already_completed="Your onboarding is complete.",
        paused="No problem, let us stop here. Write to me when you want to continue from this point.",
        handed_over="A colleague takes over from here and will get in touch with you.",
        already_handed_over="A colleague has taken over your onboarding and will get in touch with you.",
        not_saved="(I cannot reach our records right now. I will keep what you tell me and save it later.)",
        saved_again="(Our records are back: what you told me is saved.)",
        summary="Onboarding {status}. {profile} Steps: {steps}.",
        statuses={
            "in_progress": "in progress",
            "paused": "paused",
            "completed": "completed",
            "handed_over": "handed over to a person",
        },
        nothing_known="Nothing is known of the company yet.",
        steps={
            "welcome": "welcome",
            "profile": "profile",
            "tour": "tour",
            "integration": "integrations",
            "first_task": "first task",
            "success": "success",
        },
        step_statuses={"pending": "open", "waiting": "begun", "done": "done", "skipped": "skipped"},
        fields={
            "company_size": "company size",
            "industry": "industry",
            "use_case": "use case",
            "team_size": "team size",
            "integration": "to connect",
            "first_task": "do first",
        },
    ),
    "pt": Texts(
        hello="Boas-vindas!",
        hello_named="Boas-vindas, {name}!",
        introduction=(
            "Algumas perguntas, um tour rápido, suas integrações e está tudo pronto. A qualquer momento você "
            "pode dizer “pular”, “depois” ou “pessoa”, ou me perguntar algo."
        ),
        welcome_back="Que bom ter você de volta! Continuamos de onde paramos.",
        questions={
            "company_size": "Quantas pessoas trabalham na sua empresa?",
            "industry": "Qual é o ramo da sua empresa?",
            "use_case": "Para que você gostaria de usar o nosso produto?",
            "team_size": "Quantas pessoas da sua equipe vão usar?",
            "tour": "Dê uma olhada e pergunte o que quiser. Podemos seguir para as suas integrações?",
            "integration": "Quais outras ferramentas você gostaria de conectar, se houver alguma?",
            "connected": "Já está conectado e funcionando?",
            "first_task": "O que você gostaria de fazer primeiro, por exemplo importar os contatos?",
            "success": "Por último: você já consegue fazer o que queria?",
        },
        unusable="Desculpe, não entendi.",
        first_steps="importar contatos, campanhas, integrações",
        plain_tour="Estes artigos de ajuda combinam com o que você quer fazer:\n{articles}",
        no_tour="No momento não tenho artigos de ajuda sobre o que você quer fazer; seguimos sem o tour.",
        plain_guide="Estes artigos de ajuda explicam como configurar:\n{articles}",
        no_guide="No momento não tenho um artigo de ajuda sobre essa configuração. Se travar, diga “pessoa”.",
        task_started="Boa escolha. Daqui a dois dias alguém da equipe vai perguntar como foi.",
        help_out="Vamos ver isso juntos.",
        plain_answer="Não consigo responder sozinho agora. Estes artigos de ajuda tratam disso:\n{articles}",
        no_answer="No momento não tenho um artigo sobre isso. Diga “pessoa” e alguém da equipe assume.",
        completed="Com isso, sua configuração inicial está concluída.",
        completed_followed_up=(
            "Com isso, sua configuração inicial está concluída. Daqui a uma semana entramos em contato para "
            "saber como está indo."
        ),
        already_completed="Sua configuração inicial está concluída.",
        paused="Sem problema, paramos aqui. Escreva quando quiser seguir: continuamos de onde estamos.",
        handed_over="Alguém da nossa equipe assume a partir daqui e vai entrar em contato com você.",
        already_handed_over="Alguém da nossa equipe já assumiu e vai entrar em contato com você.",
        not_saved=(
            "(Não consigo acessar nossos registros agora. O que você me disser fica guardado aqui e é salvo "
            "depois.)"
        ),
        saved_again="(Nossos registros voltaram: o que você me disse está salvo.)",
        summary="Configuração inicial {status}. {profile} Etapas: {steps}.",
        statuses={
            "in_progress": "em andamento",
            "paused": "pausada",
            "completed": "concluída",
            "handed_over": "passada a uma pessoa",
        },
        nothing_known="Ainda não se sabe nada da empresa.",
        steps={
            "welcome": "boas-vindas",
            "profile": "perfil",
            "tour": "tour",
            "integration": "integrações",
            "first_task": "primeira tarefa",
            "success": "sucesso",
        },
        step_statuses={"pending": "em aberto", "waiting": "iniciada", "done": "feita", "skipped": "pulada"},
        fields={
            "company_size": "tamanho da empresa",
            "industry": "ramo",
            "use_case": "uso",
            "team_size": "tamanho da equipe",
            "integration": "a conectar",
            "first_task": "a fazer primeiro",
        },
    ),
    "es": Texts(
        hello="¡Le damos la bienvenida!",
        hello_named="¡Le damos la bienvenida, {name}!",
        introduction=(
            "Unas preguntas, un recorrido breve, sus integraciones y todo estará listo. En cualquier momento "
            "puede decir “saltar”, “luego” o “persona”, o preguntarme algo."
        ),
        welcome_back="¡Qué bueno tenerle de vuelta! Seguimos donde lo dejamos.",
        questions={
            "company_size": "¿Cuántas personas trabajan en su empresa?",
            "industry": "¿A qué sector pertenece su empresa?",
            "use_case": "¿Para qué le gustaría usar nuestro producto?",
            "team_size": "¿Cuántas personas de su equipo lo usarán?",
            "tour": "Écheles un vistazo y pregunte lo que quiera. ¿Seguimos con sus integraciones?",
            "integration": "¿Qué otras herramientas le gustaría conectar, si hay alguna?",
            "connected": "¿Ya está conectado y funcionando?",
            "first_task": "¿Qué le gustaría hacer primero, por ejemplo importar los contactos?",
            "success": "Por último: ¿ya puede hacer lo que quería?",
        },
        unusable="Perdone, no lo he entendido.",
        first_steps="importar contactos, campañas, integraciones",
        plain_tour="Estos artículos de ayuda tratan de lo que quiere hacer:\n{articles}",
        no_tour=(
            "Por ahora no tengo artículos de ayuda sobre lo que quiere hacer; seguimos sin el recorrido."
        ),
        plain_guide="Estos artículos de ayuda explican cómo configurarlo:\n{articles}",
        no_guide=(
            "Por ahora no tengo un artículo de ayuda sobre esa configuración. Si se atasca, diga “persona”."
        ),
        task_started="Buena elección. En dos días alguien del equipo le preguntará cómo le fue.",
        help_out="Veámoslo juntos.",
        plain_answer=(
            "Ahora mismo no puedo responder por mi cuenta. Estos artículos de ayuda lo explican:\n{articles}"
        ),
        no_answer="Por ahora no tengo un artículo sobre eso. Diga “persona” y alguien del equipo continuará.",
        completed="Con esto, su configuración inicial está completa.",
        completed_followed_up=(
            "Con esto, su configuración inicial está completa. En una semana le preguntaremos cómo le va."
        ),
        already_completed="Su configuración inicial está completa.",
        paused="No hay problema, lo dejamos aquí. Escríbame cuando quiera seguir desde este punto.",
        handed_over="Alguien de nuestro equipo continúa a partir de aquí y se pondrá en contacto con usted.",
        already_handed_over="Alguien de nuestro equipo ya continúa y se pondrá en contacto con usted.",
        not_saved=(
            "(Ahora mismo no puedo acceder a nuestros registros. Guardo lo que me diga y lo registraré más "
            "tarde.)"
        ),
        saved_again="(Nuestros registros han vuelto: lo que me ha dicho está guardado.)",
        summary="Configuración inicial {status}. {profile} Etapas: {steps}.",
        statuses={
            "in_progress": "en curso",
            "paused": "en pausa",
            "completed": "completa",
            "handed_over": "pasada a una persona",
        },
        nothing_known="Aún no se sabe nada de la empresa.",
        steps={
            "welcome": "bienvenida",
            "profile": "perfil",
            "tour": "recorrido",
            "integration": "integraciones",
            "first_task": "primera tarea",
            "success": "éxito",
        },
        step_statuses={"pending": "pendiente", "waiting": "empezada", "done": "hecha", "skipped": "saltada"},
        fields={
            "company_size": "tamaño de la empresa",
            "industry": "sector",
            "use_case": "uso",
            "team_size": "tamaño del equipo",
            "integration": "por conectar",
            "first_task": "por hacer primero",
        },
    ),
}
