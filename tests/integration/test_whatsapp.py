"""What a WhatsApp gateway (WAHA) notices that sends its webhooks to the service."""

import hashlib
import hmac
import json
from typing import Any

import httpx
from pydantic import SecretStr

from core.settings import WhatsAppSettings
from tests.support.events import keep_events, read_events
from tests.support.general_agent import replying, service
from tests.support.identity import WITH_KEYS
from tests.support.service import RunningService
from tests.support.waiting import until

KEY = "a-key-of-the-gateway"
CHAT = "351911111111@c.us"
SETTINGS = WhatsAppSettings(hmac_key=SecretStr(KEY), tenant="acme")


def webhook(event: str = "message", **payload: Any) -> dict[str, Any]:
    """A webhook as WAHA's documentation shows it."""
    return {
        "id": "evt_01aaaaaaaaaaaaaaaaaaaaaaaa",
        "event": event,
        "session": "shop",
        "engine": "WEBJS",
        "payload": {
            "id": "false_351911111111@c.us_AAAAAAAAAAAAAAAAAAAA",
            "timestamp": 1_667_561_485,
            "from": CHAT,
            "fromMe": False,
            "to": "351922222222@c.us",
            "body": "Which parrot?",
            "hasMedia": False,
            "ack": 1,
            **payload,
        },
    }


async def post(running: RunningService, body: dict[str, Any], *, key: str = KEY) -> httpx.Response:
    content = json.dumps(body).encode()
    signature = hmac.new(key.encode(), content, hashlib.sha512).hexdigest()
    headers = {"X-Webhook-Hmac": signature, "X-Webhook-Hmac-Algorithm": "sha512"}
    return await running.http.post("/v1/gateways/whatsapp", content=content, headers=headers)


async def test_a_message_is_answered_once_though_the_gateway_sends_it_twice(database_url: str) -> None:
    async with service(database_url, replying("A green one."), auth=WITH_KEYS, whatsapp=SETTINGS) as running:
        await keep_events(running.service.pool)
        for _ in range(2):
            taken = await post(running, webhook())
            assert (taken.status_code, taken.json()) == (202, {"status": "accepted"}), taken.text
        await until(lambda: running.service.runs.active == 0)
        [answered] = await read_events(running.service.pool, "message.answered")
    assert (answered["tenant"], answered["data"]["contact_id"]) == ("acme", CHAT)
    assert answered["data"]["response"] == "A green one."


async def test_what_no_customer_wrote_is_acknowledged_and_not_answered(shared_database_url: str) -> None:
    async with service(shared_database_url, replying(), auth=WITH_KEYS, whatsapp=SETTINGS) as running:
        for body in (
            webhook("session.status"),
            webhook(fromMe=True),
            webhook(body=""),
            webhook(body=None, hasMedia=True),
            webhook(**{"from": "120363000000000000@g.us"}),
            webhook(**{"from": "status@broadcast"}),
        ):
            taken = await post(running, body)
            assert (taken.status_code, taken.json()) == (202, {"status": "ignored"})


async def test_without_the_gateways_signature_nothing_is_taken(shared_database_url: str) -> None:
    async with service(shared_database_url, replying(), auth=WITH_KEYS, whatsapp=SETTINGS) as running:
        for key in ("another-key-of-nobody", ""):
            refused = await post(running, webhook(), key=key)
            assert (refused.status_code, refused.json()["error"]) == (401, "unauthenticated")
        unsigned = await running.http.post("/v1/gateways/whatsapp", json=webhook())
        assert unsigned.status_code == 401
        strange = await post(running, {"event": "message", "payload": {"id": 7}})
        assert strange.status_code == 422


async def test_the_route_is_off_until_its_key_is_set(shared_database_url: str) -> None:
    async with service(shared_database_url, replying(), auth=WITH_KEYS) as running:
        assert (await post(running, webhook())).status_code == 404
