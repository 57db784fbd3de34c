"""What a customer who is onboarded notices, and the company, over the real saver and the development CRM."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.errors import is_invalid_resume
from syrupy.assertion import SnapshotAssertion

from core.context import Context
from core.errors import InvalidRequest, NotFound
from core.models import build_chat_models
from core.postgres import Pool
from core.settings import FeatureSettings, ModelSettings
from graphs.onboarding import SPEC
from graphs.spec import draw_mermaid
from nodes.onboarding.state import OnboardingInput
from nodes.onboarding.texts import TEXTS
from tests.support.onboarding import (
    AISHA,
    JULIANA,
    LAURA,
    MARCUS,
    TOUR,
    UNAVAILABLE,
    journey,
    make_reading,
    reader,
)

EN, PT = TEXTS["en"], TEXTS["pt"]
SHOPIFY = make_reading(integration="Shopify")
USE = make_reading(use_case="Send campaigns on WhatsApp")


# The journey


async def test_a_customer_completes_every_step(pool: Pool) -> None:
    model = reader(
        make_reading(company_size=50),
        make_reading(industry="Tutoring"),
        USE,
        make_reading(team_size=8),
        SHOPIFY,
        make_reading(first_task="Import our pupils"),
    )
    async with journey(pool, model) as customer:
        output = await customer.begin()
        assert (output["status"], customer.question) == ("in_progress", "company_size")
        assert customer.heard.startswith("Welcome, Aisha!")
        [asked] = output["__interrupt__"]
        assert asked.value == {
            "kind": "question",
            "question": "company_size",
            "text": customer.heard,
            "contact_id": AISHA,
        }
        await customer.reply("about fifty")
        assert customer.question == "industry"
        assert (await customer.crm.get_contact(AISHA)).profile.company_size == 50
        await customer.reply("tutoring", "campaigns on WhatsApp", "eight of us")
        assert customer.question == "tour"
        assert customer.heard == f"{TOUR}\n\n{EN.questions['tour']}"
        assert customer.step("profile") == ("done", "")
        await customer.reply("Ok", "we have a Shopify shop")
        assert customer.question == "connected"
        await customer.reply("Done!", "import our pupils")
        assert customer.heard == f"{EN.task_started}\n\n{TOUR}\n\n{EN.questions['success']}"
        await customer.reply("yes")

        assert customer.output["status"] == "completed"
        assert "__interrupt__" not in customer.output
        assert [step["status"] for step in customer.output["steps"]] == ["done"] * 6
        assert customer.output["profile"] == {
            "company_size": 50,
            "industry": "Tutoring",
            "use_case": "Send campaigns on WhatsApp",
            "team_size": 8,
        }
        assert customer.output["handoff"] == {"required": False, "team": None, "reason": ""}
        assert customer.output["unsaved"] == []
        assert customer.heard == EN.completed_followed_up
        kept = (await customer.crm.get_contact(AISHA)).profile
        assert kept.model_dump() == customer.output["profile"]
        done, first_task = await customer.crm.list_follow_ups(AISHA)
        assert done.note == customer.output["summary"]
        assert first_task.subject == "First task: Import our pupils"
        turns = [type(message) for message in customer.output["messages"]]
        assert turns == [AIMessage, HumanMessage] * 9 + [AIMessage]


async def test_the_offline_model_completes_a_journey_in_english(pool: Pool) -> None:
    async with journey(pool, build_chat_models(ModelSettings(), FeatureSettings())) as customer:
        await customer.begin()
        await customer.reply(
            "about twelve people, a tutoring school",
            "Private tutoring",
            "We want to import contacts",
            "We are 5",
        )
        assert "Importing contacts from a CSV file" in customer.heard
        await customer.reply("ok", "Shopify and Google Sheets")
        assert "Settings > Integrations" in customer.heard
        await customer.reply("yes, it is connected", "import contacts")
        assert "Importing contacts from a CSV file" in customer.heard
        await customer.reply("Yes we can")
        assert customer.output["status"] == "completed"
        assert customer.output["profile"]["company_size"] == 12


async def test_the_offline_model_completes_a_journey_in_portuguese(pool: Pool) -> None:
    async with journey(pool, build_chat_models(ModelSettings(), FeatureSettings()), JULIANA) as customer:
        await customer.begin()
        assert customer.heard.startswith("Boas-vindas, Juliana!")
        await customer.reply("Somos 120 pessoas", "Queremos agendar campanhas de WhatsApp")
        assert "Agendamento de campanhas" in customer.heard
        assert customer.heard.endswith(PT.questions["tour"])
        await customer.reply("sim", "nenhuma", "pular", "sim, consigo")
        assert customer.output["status"] == "completed"
        assert customer.output["summary"].startswith("Configuração inicial concluída.")
        assert customer.output["profile"] == {
            "company_size": 120,
            "industry": "Saúde",
            "use_case": "Queremos agendar campanhas de WhatsApp",
            "team_size": 8,
        }


async def test_known_fields_of_the_crm_are_not_asked_for(pool: Pool) -> None:
    async with journey(pool, reader(), MARCUS) as customer:
        await customer.begin()
        assert customer.question == "tour"
        status, why = customer.step("profile")
        assert status == "skipped"
        assert why.count("the CRM has it") == 4
        assert customer.line.changes == []


async def test_one_reply_may_answer_several_questions(pool: Pool) -> None:
    everything = make_reading(company_size=80, industry="Retail", team_size=4, integration="Zapier")
    model = reader(everything, USE)
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("We are 80 people in retail, four of us will use it, with Zapier")
        assert customer.question == "use_case"
        await customer.reply("campaigns", "ok")
        assert customer.question == "connected"
        assert len([change for change in customer.line.changes if change[0] == "profile"]) == 2


async def test_the_first_message_is_read_like_a_reply(pool: Pool) -> None:
    async with journey(pool, reader(USE), LAURA) as customer:
        await customer.begin("Hello, we want to send campaigns")
        assert customer.question == "team_size"
        assert customer.output["profile"]["use_case"] == "Send campaigns on WhatsApp"


async def test_an_answer_can_be_corrected_later(pool: Pool) -> None:
    model = reader(make_reading(company_size=50), make_reading(company_size=80, industry="Retail"))
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("fifty", "sorry, we are 80; retail")
        assert customer.question == "use_case"
        assert (await customer.crm.get_contact(AISHA)).profile.company_size == 80


@pytest.mark.parametrize("reply", ["we are 12 people", "quite a lot"])
async def test_a_size_that_the_reply_does_not_give_is_asked_for_again(pool: Pool, reply: str) -> None:
    async with journey(pool, reader(make_reading(company_size=50))) as customer:
        await customer.begin()
        await customer.reply(reply)
        assert customer.question == "company_size"
        assert (await customer.crm.get_contact(AISHA)).profile.company_size is None


async def test_the_locale_of_the_run_takes_precedence_over_the_language_of_a_reply(pool: Pool) -> None:
    context = Context(locale="pt-BR")
    async with journey(pool, reader(make_reading(company_size=5)), context=context) as customer:
        await customer.begin()
        await customer.reply("we are five people at the company")
        assert customer.heard == PT.questions["industry"]


async def test_a_customer_who_changes_language_is_answered_in_the_new_one(pool: Pool) -> None:
    async with journey(pool, reader(make_reading(company_size=5), make_reading(industry="Moda"))) as customer:
        await customer.begin()
        await customer.reply("somos cinco pessoas na empresa")
        assert customer.heard == PT.questions["industry"]
        await customer.reply("moda")
        assert customer.heard == PT.questions["use_case"]


# Not an answer


async def test_a_customer_who_asks_for_a_person_is_handed_over(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        await customer.reply("I'd like to talk to a person, please.")
        assert customer.output["status"] == "handed_over"
        assert customer.output["handoff"] == {
            "required": True,
            "team": "customer_success",
            "reason": "the customer asked for a person",
        }
        [handoff] = await customer.crm.list_handoffs(AISHA)
        assert (handoff.team, handoff.summary) == ("customer_success", customer.output["summary"])


async def test_two_unusable_replies_in_a_row_lead_to_a_person(pool: Pool) -> None:
    async with journey(pool, reader(make_reading("unclear"), make_reading("unclear"))) as customer:
        await customer.begin()
        await customer.reply("asdf")
        assert customer.heard == f"{EN.unusable}\n\n{EN.questions['company_size']}"
        await customer.reply("jklö")
        assert customer.output["status"] == "handed_over"
        assert "company_size" in customer.output["handoff"]["reason"]


async def test_unusable_replies_to_different_questions_are_not_in_a_row(pool: Pool) -> None:
    model = reader(make_reading("unclear"), make_reading(company_size=5), make_reading("unclear"))
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("asdf", "five", "asdf")
        assert customer.question == "industry"


async def test_a_question_of_the_customer_is_answered_and_ours_is_asked_again(pool: Pool) -> None:
    asks = make_reading("question")
    async with journey(pool, reader(make_reading("unclear"), asks, asks, text="Yes, it can.")) as customer:
        await customer.begin()
        await customer.reply("asdf", "Does it work with WhatsApp?", "And does it import contacts?")
        assert customer.heard == f"Yes, it can.\n\n{EN.questions['company_size']}"
        assert customer.question == "company_size"


async def test_information_beside_a_question_is_kept(pool: Pool) -> None:
    model = reader(make_reading("question", company_size=9))
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("we are 9. Does it work with WhatsApp?")
        assert customer.question == "industry"
        assert customer.output["profile"]["company_size"] == 9


async def test_a_skipped_question_is_not_asked_again(pool: Pool) -> None:
    async with journey(pool, reader(), JULIANA) as customer:
        await customer.begin()
        await customer.reply("pular", "pula essa, por favor")
        assert customer.question == "tour"
        assert "company_size: the customer skipped it" in customer.step("profile")[1]
        await customer.reply("sim", "pular")
        assert customer.step("integration") == (
            "skipped",
            "integration: the customer skipped it; connected: there is nothing to connect",
        )
        await customer.reply("pular", "pular")
        assert customer.output["status"] == "completed"
        assert await customer.crm.list_follow_ups(JULIANA) == []


@pytest.mark.parametrize(
    ("question", "team"), [("connected", "technical_support"), ("success", "customer_success")]
)
async def test_a_customer_who_says_no_is_helped_first_and_then_gets_a_person(
    pool: Pool, question: str, team: str
) -> None:
    async with journey(pool, reader(SHOPIFY), MARCUS) as customer:
        await customer.begin()
        await customer.reply("ok", "Shopify")
        if question == "success":
            await customer.reply("done", "skip")
        assert customer.question == question
        await customer.reply("no")
        assert customer.question == question
        assert customer.heard.startswith(f"{EN.help_out}\n\n{TOUR}")
        assert customer.output["handoff"]["required"] is False
        await customer.reply("no")
        assert customer.output["handoff"]["team"] == team
        assert [handoff.team for handoff in await customer.crm.list_handoffs(MARCUS)] == [team]


# Days between


async def test_a_paused_journey_continues_where_it_stopped(pool: Pool) -> None:
    model = reader(make_reading(company_size=5), make_reading(industry="Retail"))
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("five", "later")
        assert (customer.output["status"], customer.question) == ("paused", None)
        assert [each.subject for each in await customer.crm.list_follow_ups(AISHA)] == ["Onboarding paused"]
    async with journey(pool, model) as customer:
        await customer.begin()
        assert (customer.output["status"], customer.question) == ("in_progress", "industry")
        assert customer.heard == f"{EN.welcome_back}\n\n{EN.questions['industry']}"
        await customer.reply("retail")
        assert customer.question == "use_case"


async def test_a_greeting_after_a_pause_does_not_count_as_unusable(pool: Pool) -> None:
    async with journey(pool, reader(make_reading("unclear"), make_reading("unclear"))) as customer:
        await customer.begin()
        await customer.reply("not now")
        await customer.begin("Good morning, I'm back!")
        assert customer.heard == f"{EN.welcome_back}\n\n{EN.questions['company_size']}"
        await customer.reply("asdf")
        assert customer.question == "company_size"
        await customer.reply("asdf")
        assert customer.output["status"] == "handed_over"


async def test_fields_entered_in_the_crm_meanwhile_are_not_asked_for(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        await customer.reply("later")
        profile = (await customer.crm.get_contact(MARCUS)).profile
        await customer.crm.update_profile(AISHA, profile, key="a-colleague")
        await customer.begin()
        assert customer.question == "tour"


async def test_a_new_run_on_a_finished_journey_changes_nothing(pool: Pool) -> None:
    async with journey(pool, reader(), MARCUS) as customer:
        await customer.begin()
        await customer.reply("ok", "none", "skip", "yes")
        assert customer.output["status"] == "completed"
        changes = list(customer.line.changes)
        await customer.begin("Hello again")
        assert (customer.output["status"], customer.question) == ("completed", None)
        assert customer.heard.startswith(EN.already_completed)
        assert customer.line.changes == changes
        assert len(await customer.crm.list_follow_ups(MARCUS)) == 1


async def test_a_customer_who_writes_after_a_hand_off_stays_with_the_person(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        await customer.reply("person")
        await customer.begin("Hello?")
        assert customer.heard.startswith(EN.already_handed_over)
        assert len(await customer.crm.list_handoffs(AISHA)) == 1


async def test_a_thread_belongs_to_one_customer(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        customer.contact = MARCUS
        with pytest.raises(InvalidRequest, match="another contact"):
            await customer.begin()
        customer.contact = AISHA
        await customer.begin()
        assert customer.question == "company_size"


async def test_an_empty_reply_is_refused_and_the_question_stays(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        with pytest.raises(ValueError, match="reply") as refused:
            await customer.reply("   ")
        assert is_invalid_resume(refused.value)
        state = await customer.graph.aget_state(customer.config)
        assert len(state.interrupts) == 1


# Faults


async def test_a_reply_the_model_cannot_read_is_taken_as_it_is(pool: Pool) -> None:
    too_big = json.dumps({"intent": "information", "company_size": 10**9})
    model = reader("no JSON", too_big, "no JSON", "none again", text="")
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("around 1,200 people", "Online  retail")
        assert customer.question == "use_case"
        assert customer.output["profile"]["company_size"] == 1200
        assert customer.output["profile"]["industry"] == "Online retail"
    assert "could not be read" in model.prompts[1][-1].text


async def test_the_journey_continues_without_a_model(pool: Pool) -> None:
    model = reader(*UNAVAILABLE * 6, text=ConnectionError("no route"))
    async with journey(pool, model) as customer:
        await customer.begin()
        await customer.reply("we are 40", "Retail", "import contacts from a spreadsheet", "about 3")
        assert customer.question == "tour"
        assert "- Importing contacts from a CSV file" in customer.heard
        await customer.reply("ok", "Shopify")
        assert "- Connecting Shopify, Zapier and Google Sheets" in customer.heard
        await customer.reply("what do I need an API key for?")
        assert "- Creating and rotating API keys" in customer.heard
        await customer.reply("it works", "skip", "5")
        assert customer.question == "success"
        await customer.reply("yes")
        assert customer.output["status"] == "completed"


async def test_nothing_is_lost_while_the_crm_is_unavailable(pool: Pool) -> None:
    async with journey(
        pool, reader(make_reading(company_size=50), make_reading(industry="Retail"), USE)
    ) as customer:
        customer.line.down = True
        await customer.begin()
        assert customer.question == "company_size"
        assert EN.not_saved in customer.heard
        await customer.reply("fifty")
        assert customer.output["unsaved"] == ["profile (company_size: 50)"]
        assert EN.not_saved not in customer.heard
        customer.line.down = False
        await customer.reply("retail")
        assert customer.output["unsaved"] == []
        assert EN.saved_again in customer.heard
        kept = (await customer.crm.get_contact(AISHA)).profile
        assert (kept.company_size, kept.industry) == (50, "Retail")
        await customer.reply("campaigns")
        assert EN.saved_again not in customer.heard


async def test_the_record_is_read_once_the_crm_is_available_again(pool: Pool) -> None:
    async with journey(pool, reader(make_reading(company_size=86)), MARCUS) as customer:
        customer.line.down = True
        await customer.begin()
        assert customer.question == "company_size"
        customer.line.down = False
        await customer.reply("we are 86 now")
        assert customer.question == "tour"
        assert (await customer.crm.get_contact(MARCUS)).profile.company_size == 86


async def test_a_later_run_delivers_a_hand_off_the_crm_did_not_get(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        customer.line.down = True
        await customer.reply("agent")
        assert customer.output["status"] == "handed_over"
        assert customer.output["unsaved"][0].startswith("handoff (team: customer_success")
        customer.line.down = False
        await customer.begin()
        assert customer.output["unsaved"] == []
        assert len(await customer.crm.list_handoffs(AISHA)) == 1


async def test_a_change_is_made_once_when_its_confirmation_was_lost(pool: Pool) -> None:
    async with journey(pool, reader()) as customer:
        await customer.begin()
        customer.line.lost = 1
        await customer.reply("human")
        assert len(customer.output["unsaved"]) == 1
        await customer.begin()
        assert customer.output["unsaved"] == []
        assert len(await customer.crm.list_handoffs(AISHA)) == 1
        [(_, first), (_, second)] = customer.line.changes
        assert first == second


async def test_an_unknown_contact_is_refused(pool: Pool) -> None:
    async with journey(pool, reader(), "00000000-0000-4000-8000-000000000000") as customer:
        with pytest.raises(NotFound):
            await customer.begin()


# Golden files


def test_the_diagram(snapshot: SnapshotAssertion) -> None:
    assert draw_mermaid(SPEC) == snapshot


def test_the_input_schema(snapshot: SnapshotAssertion) -> None:
    assert OnboardingInput.model_json_schema() == snapshot


async def test_what_the_model_sees(pool: Pool, snapshot: SnapshotAssertion) -> None:
    model = reader(USE, make_reading("question"), make_reading(team_size=4), SHOPIFY)
    async with journey(pool, model, LAURA) as customer:
        output = await customer.begin()
        await customer.reply("campaigns", "Can I use WhatsApp?", "we are four", "ok", "Shopify")
        assert output["__interrupt__"][0].response_schema == snapshot(name="what a reply is")
    assert [message.text for message in model.prompts[0]] == snapshot(name="reading")
    answered, toured, guided = ([message.text for message in told] for told in model.requests)
    assert answered == snapshot(name="answer")
    assert toured == snapshot(name="tour")
    assert guided == snapshot(name="guide")
