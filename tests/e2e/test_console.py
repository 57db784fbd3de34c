"""The console as people use it, in a real browser."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser, Page, expect

from core.settings import ApprovalSettings, AuthSettings, QueueSettings
from nodes.react.state import Reflection
from tests.support.console import inspect_page, open_browser, running_console, tab_to
from tests.support.general_agent import say
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tests.support.workflows import ask

pytestmark = pytest.mark.browser

ORDER = "Where is my order? It should have arrived on Monday."


@pytest.fixture(scope="module")
async def opened(
    shared_database_url: str,
) -> AsyncIterator[tuple[RunningService, str, Browser, ScriptedChatModel]]:
    model = ScriptedChatModel()
    review = ApprovalSettings(unsupported="review")
    async with (
        running_service(
            shared_database_url, scripted_models(model), approvals=review, queue=QueueSettings()
        ) as running,
        running_console(running.url) as console,
        open_browser() as browser,
    ):
        yield running, console, browser, model


@pytest.fixture
async def page(opened: tuple[RunningService, str, Browser, ScriptedChatModel]) -> AsyncIterator[Page]:
    """A page whose errors, and requests to anywhere else, fail the test."""
    _, console, browser, _ = opened
    context = await browser.new_context(base_url=console, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((console, "data:", "blob:")) else faults.append(asked.url),
    )
    yield page
    await context.close()
    assert faults == []


@pytest.fixture
def running(opened: tuple[RunningService, str, Browser, ScriptedChatModel]) -> RunningService:
    return opened[0]


@pytest.fixture
def model(opened: tuple[RunningService, str, Browser, ScriptedChatModel]) -> ScriptedChatModel:
    return opened[3]


def answer_order(model: ScriptedChatModel, text: str) -> None:
    """Have the model look the order up and answer."""
    done = Reflection(success=True, reasoning="Found.", task_complete=True, final_answer=text)
    model.replies = [calling("I look.", ("get_orders", {})), done]


async def test_a_support_lead_takes_a_conversation_over_with_the_keyboard_alone_and_hands_it_back(
    page: Page, running: RunningService, model: ScriptedChatModel
) -> None:
    answer_order(model, "ORD-7001 is delayed.")
    await say(running, ORDER, channel_id="inbox")
    await say(running, "I want to speak to your manager.", channel_id="inbox")
    await page.goto("/")
    await expect(page.get_by_text("Waits for a person").first).to_be_visible()
    await inspect_page(page, "inbox")
    await tab_to(page.get_by_role("link", name="I have passed this on").first)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Take over", exact=True)).to_be_visible()
    await tab_to(page.get_by_role("button", name="Take over", exact=True))
    await page.keyboard.press("Enter")
    # Who has taken over goes on to write.
    await expect(page.get_by_label("Reply to the customer")).to_be_focused()
    await page.keyboard.type("Hello, this is Ana. I am looking at it.")
    await tab_to(page.get_by_role("button", name="Send"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("this is Ana")).to_be_visible()
    # What the customer writes now appears by itself.
    assert (await say(running, "Thank you, Ana!", channel_id="inbox"))["path"] == "person"
    await expect(page.get_by_text("Thank you, Ana!")).to_be_visible()
    await page.get_by_label("Search what is remembered").fill("the order that did not arrive")
    await page.get_by_label("Search what is remembered").press("Enter")
    await expect(page.get_by_text(f"message: {ORDER}")).to_be_visible()
    await page.get_by_text("order_status, agent").click()
    await expect(page.get_by_text("get_orders").first).to_be_visible()
    await inspect_page(page, "conversation")
    await page.get_by_role("button", name="Hand back to the agents").click()
    await expect(page.get_by_text("With agents")).to_be_visible()
    await page.set_viewport_size({"width": 390, "height": 800})
    await inspect_page(page, "conversation-narrow")
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_a_person_decides_what_waits(
    page: Page, running: RunningService, model: ScriptedChatModel
) -> None:
    answer_order(model, "We credit you 4711.")
    waiting = await say(running, ORDER, channel_id="approvals")
    await page.goto("/approvals")
    await expect(page.get_by_text("We credit you 4711.").first).to_be_visible()
    await inspect_page(page, "approvals")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_text("Nothing waits for a decision")).to_be_visible()
    said = (await running.http.get(f"/v1/sessions/{waiting['session_id']}/messages")).json()["messages"]
    assert said[-1]["text"] == "We credit you 4711."


async def test_an_operator_sees_how_everything_is_doing(page: Page, running: RunningService) -> None:
    await page.goto("/overview")
    await expect(page.get_by_text("healthy")).to_be_visible()
    await page.get_by_role("button", name="7 days").click()
    await inspect_page(page, "overview")
    await page.goto("/agents")
    await tab_to(page.get_by_role("button", name="billing_support"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("get_invoices")).to_be_visible()
    await inspect_page(page, "agents")


async def test_somebody_without_a_valid_key_is_told_so_and_sees_nothing(
    opened: tuple[RunningService, str, Browser, ScriptedChatModel], database_url: str
) -> None:
    browser = opened[2]
    async with AsyncExitStack() as stack:
        locked = await stack.enter_async_context(
            running_service(database_url, auth=AuthSettings(api_keys=True))
        )
        console = await stack.enter_async_context(running_console(locked.url))
        context = await browser.new_context(base_url=console)
        stack.push_async_callback(context.close)
        page = await context.new_page()
        await page.goto("/approvals")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await page.get_by_label("API key").fill("wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).not_to_be_empty()
        await inspect_page(page, "sign-in")


async def test_a_developer_watches_a_graph_answers_its_question_and_goes_back_in_time(
    page: Page, model: ScriptedChatModel
) -> None:
    send = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
    done = Reflection(
        success=True, reasoning="Sent.", task_complete=True, final_answer="I told the customer."
    )
    model.replies = [calling("I tell them.", send), done, done]
    await page.goto("/playground?graph=react")
    await page.get_by_label("Task").first.fill("Refund the last invoice.")
    await page.get_by_label("Contact Id").fill(CONTACT)
    await page.get_by_role("button", name="Run", exact=True).click()
    await expect(page.get_by_text("The graph asks")).to_be_visible()
    await inspect_page(page, "playground-question")
    await page.get_by_role("button", name="Answer").click()
    await expect(page.get_by_text("I told the customer.").first).to_be_visible()
    await expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    await inspect_page(page, "playground")
    await page.get_by_role("link", name="History of the thread").click()
    await page.get_by_role("button", name="reflect").first.click()
    await expect(page.get_by_text("Changed since the one before")).to_be_visible()
    await inspect_page(page, "thread")
    steps = await page.get_by_role("button", name="step").count()
    await page.get_by_role("button", name="Run again from here").click()
    await expect(page.get_by_text("It ran again from that checkpoint")).to_be_visible()
    await expect(page.get_by_role("button", name="step")).not_to_have_count(steps)


async def test_an_operator_sees_where_a_workflow_waits_and_lets_it_go_on(
    page: Page, running: RunningService
) -> None:
    definition = {"name": "greeting", "steps": [ask("may_it")]}
    started = await running.http.post("/v1/workflows", json={"definition": definition})
    assert started.status_code == 202, started.text
    await page.goto("/workflows")
    await expect(page.get_by_text("greeting").first).to_be_visible()
    await inspect_page(page, "workflows")
    await page.get_by_text("greeting").first.click()
    await expect(page.get_by_text("may_it").first).to_be_visible()
    await expect(page.get_by_text("waiting").first).to_be_visible()
    await inspect_page(page, "workflow")
    await page.goto("/approvals")
    await page.get_by_role("button", name="Approve").click()
    await page.goto(f"/workflows/{started.json()['id']}")
    await expect(page.get_by_text("succeeded").first).to_be_visible()
