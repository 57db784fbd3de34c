"""What a browser, and a page that is not ours, notice."""

from collections.abc import AsyncIterator

import pytest
from langserve.lzstring import LZString

from core.settings import ServerSettings
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import RunningService, running_service

CRM = "https://crm.example"
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    server = ServerSettings(port=0, cors_origins=(CRM,))
    models = scripted_models(ScriptedChatModel())
    async with running_service(shared_database_url, models, server=server) as opened:
        yield opened


DATA = ("/info", "/nowhere", "/react/invoke")


@pytest.mark.parametrize("path", [*DATA, "/react/playground/", "/docs", "/crm/docs"])
async def test_every_response_has_security_headers(running: RunningService, path: str) -> None:
    headers = (await running.http.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    if path in DATA:
        assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_pages_may_load_their_own_resources(running: RunningService) -> None:
    policies = {}
    for path in ("/docs", "/redoc", "/react/playground/"):
        page = await running.http.get(path)
        policies[path] = page.headers["Content-Security-Policy"]
        for source in (
            "https://cdn.jsdelivr.net",
            "https://fonts.googleapis.com",
            "https://fastapi.tiangolo.com",
        ):
            assert source not in page.text or source in policies[path], (path, source)
        assert ("<script>" in page.text) <= ("'unsafe-inline'" in policies[path])
    script = (await running.http.get("/react/playground/")).text.split('src="')[1].split('"')[0]
    assert "new Function" in (await running.http.get(script)).text
    assert "'unsafe-eval'" in policies["/react/playground/"]
    assert "'unsafe-eval'" not in policies["/docs"]


async def test_a_script_in_a_link_to_the_playground_is_not_run(running: RunningService) -> None:
    said = '{"configurable": {"thread_id": "</script><script>alert(1)</script>"}}'
    config_hash = str(LZString.compressToEncodedURIComponent(said))  # type: ignore[no-untyped-call]
    page = await running.http.get(f"/react/c/{config_hash}/playground/")
    assert page.status_code == 404
    assert "alert(1)" not in page.text


async def test_only_pages_that_the_operator_names_may_call(running: RunningService) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = await running.http.options("/v1/messages", headers={"Origin": CRM, **asks})
    assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, CRM)
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    told = await running.http.get("/info", headers={"Origin": CRM})
    assert (told.status_code, told.headers["Access-Control-Allow-Origin"]) == (200, CRM)
    assert "X-Thread-Id" in told.headers["Access-Control-Expose-Headers"]
    plain = {"Origin": EVIL, "Content-Type": "text/plain"}
    for answer in (
        await running.http.options("/v1/messages", headers={"Origin": EVIL, **asks}),
        await running.http.get("/info", headers={"Origin": EVIL}),
        # As a page's plain form could send it, without asking first.
        await running.http.post("/react/invoke", content="{}", headers=plain),
    ):
        assert answer.status_code in {400, 403}
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_no_page_may_call_by_default(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        for method in ("OPTIONS", "GET"):
            answer = await running.http.request(method, "/info", headers={"Origin": CRM})
            assert answer.status_code == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        rebound = await running.http.get("/info", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["error"]) == (403, "forbidden")
