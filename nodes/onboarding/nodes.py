"""The nodes of the onboarding graph: one class, one method per node."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from core.context import Context
from core.customer_text import CustomerText, find_customer_text_fault
from core.errors import CrmError, CrmRefused, ModelError, NotFound
from core.models import is_unable, track_answers
from core.texts import detect_language
from nodes.deps import Deps, get_run_context
from nodes.onboarding.journey import (
    NextNode,
    NodeAfterReply,
    apply_reply,
    build_follow_up,
    build_handoff_after_no,
    build_steps,
    build_summary,
    continue_journey,
    deliver_outbox,
    describe_write,
    enqueue_write,
    find_next_node,
    find_next_question,
    name_help,
    start_journey,
)
from nodes.onboarding.replies import (
    CALL_TIMEOUT_SECONDS,
    detect_reply_language,
    parse_reply,
    read_with_model,
)
from nodes.onboarding.state import (
    PROFILE,
    Customer,
    OnboardingState,
    Outcome,
    Profile,
    Question,
    QuestionToCustomer,
    Reply,
)
from nodes.onboarding.texts import TEXTS
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import WRITE
from nodes.shared.structured import find_customer_reply_fault
from tools.crm.models import Article
from tools.knowledge_base import KnowledgeBase

MAX_ARTICLES = 3
FOLLOW_UP_AFTER_SUCCESS = timedelta(days=7)
FOLLOW_UP_AFTER_PAUSE = timedelta(days=3)
FOLLOW_UP_AFTER_TASK = timedelta(days=2)


class OnboardingNodes:
    """The nodes of the onboarding graph.

    Args:
        deps: The models and the CRM.
    """

    def __init__(self, deps: Deps) -> None:
        self._models = deps.models
        self._crm = deps.crm
        self._knowledge = deps.knowledge or KnowledgeBase(deps.crm)

    async def prepare(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: start a journey, or continue the thread's.

        A paused journey continues. One whose question is still open (its caller started a new run instead of
        resuming) asks it again, or takes the message as the reply. One that has ended stays as it is, and
        what the CRM does not have yet is tried again.

        Raises:
            InvalidRequest: The thread holds the journey of another contact.
        """
        message = state.get("message", "").strip()
        is_new = state.get("customer") is None
        update = start_journey(state["contact_id"]) if is_new else continue_journey(state)
        previous = state.get("language", "en")
        update["language"] = detect_reply_language(get_run_context(runtime).locale, message, previous)
        if message:
            update["messages"] = [HumanMessage(message, id=str(uuid4()))]
        if update["status"] == "in_progress":
            # A reply that a failed run left unread is not lost.
            update["reply"] = message or state.get("reply", "")
        return update

    async def sync(self, state: OnboardingState, *, runtime: Runtime[Context]) -> Command[NextNode]:
        """Node: read the contact once per run, and make the queued changes in the CRM.

        A CRM that is unavailable delays nobody: the next ``sync`` tries again.

        Raises:
            NotFound: The CRM does not know the contact.
        """
        update = await self._load_customer(state, get_run_context(runtime).locale)
        current = cast("OnboardingState", {**state, **update})
        loaded = current["customer"]["loaded"]
        # The customer waits, so a CRM that just failed is not called again in this node.
        outbox = await deliver_outbox(self._crm, state) if loaded else state["outbox"]
        unavailable = bool(outbox) or not loaded
        texts = TEXTS[current["language"]]
        if unavailable and not state["outage_announced"]:
            update["paragraphs"] = [*state["paragraphs"], texts.not_saved]
        elif state["outage_announced"] and not unavailable:
            update["paragraphs"] = [*state["paragraphs"], texts.saved_again]
        update |= {
            "outbox": outbox,
            "unsaved": [describe_write(write) for write in outbox],
            "outage_announced": unavailable,
        }
        return Command(goto=find_next_node(current), update=update)

    async def _load_customer(self, state: OnboardingState, locale: str | None) -> dict[str, Any]:
        """Return the update with the CRM's record; what the customer said takes precedence."""
        customer = state["customer"]
        if customer["loaded"]:
            return {}
        try:
            contact = await self._crm.get_contact(customer["id"])
        except CrmRefused as refusal:
            raise NotFound(
                f"the CRM does not know contact {customer['id']!r}", details={"contact_id": customer["id"]}
            ) from refusal
        except CrmError:
            return {}
        known = contact.profile.model_dump(exclude_none=True)
        outcomes, profile = dict(state["outcomes"]), dict(state["profile"])
        for name in PROFILE:
            outcome = outcomes.get(name)
            if name in known and (outcome is None or outcome["status"] != "answered"):
                profile[name] = known[name]
                outcomes[name] = Outcome(status="known", reason="the CRM has it")
        update: dict[str, Any] = {
            "customer": Customer(
                id=customer["id"], name=contact.name, time_zone=contact.timezone or "", loaded=True
            ),
            "profile": profile,
            "outcomes": outcomes,
        }
        if not state["presented"]:
            language = detect_language("", contact.language)
            update["language"] = detect_reply_language(locale, state["reply"], language)
        return update

    async def welcome(self, state: OnboardingState) -> Command[Literal["read", "tour", "guide", "ask"]]:
        """Node: greet the customer by name and say what comes next."""
        texts = TEXTS[state["language"]]
        name = next(iter(state["customer"]["name"].split()), "")
        hello = texts.hello_named.format(name=name) if name else texts.hello
        presented = [*state["presented"], "welcome"]
        goto = find_next_node(cast("OnboardingState", {**state, "presented": presented}))
        paragraphs = [f"{hello} {texts.introduction}", *state["paragraphs"]]
        return Command(
            goto=cast("Literal['read', 'tour', 'guide', 'ask']", goto),
            update={"presented": presented, "paragraphs": paragraphs},
        )

    async def read(self, state: OnboardingState, *, runtime: Runtime[Context]) -> Command[NodeAfterReply]:
        """Node: take in the customer's reply. If the model fails, the reply is taken as it is."""
        context = get_run_context(runtime)
        language = detect_reply_language(context.locale, state["reply"], state["language"])
        current: OnboardingState = {**state, "language": language}
        reading = parse_reply(state["reply"], state["question"])
        if reading is None:
            reading = await read_with_model(self._models, current, context.model)
        update, goto = apply_reply(current, reading)
        old, new = state["profile"], update["profile"]
        changes: dict[str, int | str] = {
            name: new[name] for name in PROFILE if new[name] not in (None, old[name])
        }
        if changes:
            update |= enqueue_write(current, runtime, "profile", changes)
        return Command(goto=goto, update={"language": language, **update})

    async def answer(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: answer the customer's own question from the help articles; the open question stays open."""
        texts = TEXTS[state["language"]]
        question = next(
            message.text for message in reversed(state["messages"]) if isinstance(message, HumanMessage)
        )
        _, articles = await self._find_articles(question)
        text: str | None = texts.no_answer
        if articles:
            text = await self._write("onboarding_answer", state, question, articles, runtime)
        text = text or texts.plain_answer.format(articles=_list_titles(articles))
        return {"paragraphs": [*state["paragraphs"], text]}

    async def tour(
        self, state: OnboardingState, *, runtime: Runtime[Context]
    ) -> Command[Literal["guide", "ask"]]:
        """Node: write a tour from the articles that fit the use case; without articles it is skipped."""
        texts = TEXTS[state["language"]]
        goal = state["profile"]["use_case"] or state["profile"]["industry"] or texts.first_steps
        query, articles = await self._find_articles(goal, texts.first_steps)
        presented = [*state["presented"], "tour"]
        if not articles:
            skipped = Outcome(status="skipped", reason="there was no help article to show")
            outcomes = {**state["outcomes"], "tour": skipped}
            goto = find_next_node(cast("OnboardingState", {**state, "outcomes": outcomes}))
            paragraphs = [*state["paragraphs"], texts.no_tour]
            return Command(
                goto=cast("Literal['guide', 'ask']", goto),
                update={"presented": presented, "outcomes": outcomes, "paragraphs": paragraphs},
            )
        text = await self._write("onboarding_tour", state, query, articles, runtime)
        text = text or texts.plain_tour.format(articles=_list_titles(articles))
        return Command(
            goto="ask", update={"presented": presented, "paragraphs": [*state["paragraphs"], text]}
        )

    async def guide(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: explain how to set up what the customer wants to connect."""
        texts = TEXTS[state["language"]]
        text = await self._explain(state, "guide", state["integration"], runtime=runtime)
        return {
            "presented": [*state["presented"], "guide"],
            "paragraphs": [*state["paragraphs"], text or texts.no_guide],
        }

    async def start_task(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: explain how to do what the customer wants to do first, and have a colleague ask about it."""
        texts = TEXTS[state["language"]]
        text = await self._explain(state, "guide", state["first_task"], runtime=runtime)
        body = build_follow_up(f"First task: {state['first_task']}", state, FOLLOW_UP_AFTER_TASK)
        return {
            "presented": [*state["presented"], "first_task"],
            "paragraphs": [*state["paragraphs"], texts.task_started, *filter(None, [text])],
            **enqueue_write(state, runtime, "follow_up", body),
        }

    async def help_out(
        self, state: OnboardingState, *, runtime: Runtime[Context]
    ) -> Command[Literal["sync", "hand_over"]]:
        """Node: help a customer who said no; where no article can, call a person."""
        question = cast("Question", state["question"])
        said = next(
            message.text for message in reversed(state["messages"]) if isinstance(message, HumanMessage)
        )
        texts = TEXTS[state["language"]]
        goal = state["integration"] if question == "connected" else state["first_task"]
        goals = [f"{goal} {said}", goal, state["profile"]["use_case"], texts.first_steps]
        text = await self._explain(state, "help", *filter(None, goals), runtime=runtime)
        if text is None:
            return Command(goto="hand_over", update={"handoff": build_handoff_after_no(question)})
        paragraphs = [*state["paragraphs"], texts.help_out, text]
        return Command(
            goto="sync",
            update={"presented": [*state["presented"], name_help(question)], "paragraphs": paragraphs},
        )

    async def _explain(
        self, state: OnboardingState, prompt: str, *goals: str, runtime: Runtime[Context]
    ) -> str | None:
        """Return how to reach the first goal that help articles are about; None if there are none."""
        query, articles = await self._find_articles(*goals)
        if not articles:
            return None
        text = await self._write(f"onboarding_{prompt}", state, query, articles, runtime)
        return text or TEXTS[state["language"]].plain_guide.format(articles=_list_titles(articles))

    async def ask(self, state: OnboardingState) -> dict[str, Any]:
        """Node: join all paragraphs and the next question into one message.

        It is separate from ``wait``, which runs twice.
        """
        question = find_next_question(state["outcomes"])
        if question is None:
            raise ValueError("there is no question left to ask")
        text = _join([*state["paragraphs"], TEXTS[state["language"]].questions[question]]).text
        return {
            "question": question,
            "question_text": text,
            "paragraphs": [],
            "misses": state["misses"] if question == state["question"] else 0,
            "messages": [AIMessage(text, id=str(uuid4()))],
            "steps": build_steps(state["outcomes"], welcomed=True),
        }

    async def wait(self, state: OnboardingState) -> dict[str, Any]:
        """Node: interrupt the run until the customer replies. It has no side effect, so it may run twice."""
        if state["question"] is None:
            raise ValueError("no question was asked")
        question = QuestionToCustomer(
            kind="question",
            question=state["question"],
            text=state["question_text"],
            contact_id=state["customer"]["id"],
        )
        reply: Reply = interrupt(question, response_schema=Reply)
        return {"reply": reply.reply, "messages": [HumanMessage(reply.reply, id=str(uuid4()))]}

    async def hand_over(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: hand over to a person of the company."""
        ended: OnboardingState = {**state, "status": "handed_over"}
        body = {
            "team": state["handoff"]["team"] or "customer_success",
            "reason": state["handoff"]["reason"],
            "summary": build_summary(ended),
        }
        paragraphs = [*state["paragraphs"], TEXTS[state["language"]].handed_over]
        write = enqueue_write(state, runtime, "handoff", body)
        return {"status": "handed_over", "paragraphs": paragraphs, **write}

    async def pause(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: pause the journey, with a follow-up in case the customer does not return."""
        ended: OnboardingState = {**state, "status": "paused"}
        body = build_follow_up("Onboarding paused", ended, FOLLOW_UP_AFTER_PAUSE)
        paragraphs = [*state["paragraphs"], TEXTS[state["language"]].paused]
        write = enqueue_write(state, runtime, "follow_up", body)
        return {"status": "paused", "paragraphs": paragraphs, **write}

    async def complete(self, state: OnboardingState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: end the journey, with a follow-up for a customer who confirmed success."""
        ended: OnboardingState = {**state, "status": "completed"}
        texts = TEXTS[state["language"]]
        if state["outcomes"]["success"]["status"] != "confirmed":
            return {"status": "completed", "paragraphs": [*state["paragraphs"], texts.completed]}
        body = build_follow_up("Onboarding completed", ended, FOLLOW_UP_AFTER_SUCCESS)
        paragraphs = [*state["paragraphs"], texts.completed_followed_up]
        write = enqueue_write(state, runtime, "follow_up", body)
        return {"status": "completed", "paragraphs": paragraphs, **write}

    async def finish(self, state: OnboardingState) -> dict[str, Any]:
        """Node: send the remaining paragraphs. The summary is for the company, and no message."""
        summary = build_summary(state)
        text = _join(state["paragraphs"])
        return {
            "messages": [AIMessage(text.text, id=str(uuid4()))],
            "paragraphs": [],
            "summary": summary,
            "steps": build_steps(state["outcomes"], welcomed="welcome" in state["presented"]),
        }

    async def _find_articles(self, *queries: str) -> tuple[str, list[Article]]:
        """Return the first query with results, and the best articles; none if they are unavailable."""
        try:
            for query in queries:
                if found := await self._knowledge.find(query, limit=MAX_ARTICLES):
                    return query, [each.article.model_copy(update={"body": each.excerpt}) for each in found]
        except CrmError:
            pass  # the customer is told the same as if there were no article
        return queries[0], []

    async def _write(
        self,
        prompt: str,
        state: OnboardingState,
        task: str,
        articles: Sequence[Article],
        runtime: Runtime[Context],
    ) -> str | None:
        """Have the model write a text from the articles; None if it fails, or the text is incomplete."""
        context = get_run_context(runtime)
        system = build_system_prompt(
            load_prompt(prompt),
            locale=context.locale or state["language"],
            time_zone=state["customer"]["time_zone"],
        )
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                with track_answers() as streamed:
                    reply = await self._models.reply(
                        _build_messages(system, state["profile"], task, articles),
                        temperature=WRITE.temperature,
                        role=WRITE.role,
                        model=context.model,
                    )
        except (ModelError, TimeoutError):
            return None
        if find_customer_reply_fault(reply) or is_unable(reply):
            await streamed.retract()
            return None
        return reply.text.strip()


def _join(paragraphs: Sequence[str]) -> CustomerText:
    """Join paragraphs to a message, without those that no customer may read; what is fixed always stays."""
    return CustomerText("\n\n".join(one for one in paragraphs if not find_customer_text_fault(one)))


def _list_titles(articles: Sequence[Article]) -> str:
    return "\n".join(f"- {article.title}" for article in articles)


def _build_messages(
    system: str, profile: Profile, task: str, articles: Sequence[Article]
) -> list[AnyMessage]:
    known = [f"{name.replace('_', ' ')}: {value}" for name, value in profile.items() if value is not None]
    listed = [
        f"{number}. search_knowledge_base(): {article.title}. {' '.join(article.body.split())}"
        for number, article in enumerate(articles, 1)
    ]
    return [
        SystemMessage(system),
        HumanMessage(task),
        HumanMessage("\n".join(["[What is known of the customer]", *(known or ["nothing"])])),
        HumanMessage("\n".join(["[Help articles that were found]", *listed])),
    ]
