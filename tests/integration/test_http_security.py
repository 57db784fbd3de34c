"""What a browser, and a page that is not ours, notice."""

import re
from collections.abc import AsyncIterator
from urllib.parse import urljoin

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


@pytest.mark.parametrize("path", ["/", "/docs", "/crm/docs", "/react/playground/"])
async def test_pages_load_and_run_what_the_service_itself_serves_alone(
    running: RunningService, path: str
) -> None:
    page = await running.http.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;")
    assert "script-src" not in policy
    assert "<script>" not in page.text
    assert "style=" not in page.text
    for source in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text):
        asset = await running.http.get(urljoin(path, source))
        assert asset.status_code == 200
        assert asset.headers["Content-Type"].startswith("text/")
    links = re.findall(r'href="([^"#:]+)"', page.text)
    for link in links:
        assert (await running.http.get(urljoin(path, link), follow_redirects=True)).status_code == 200, link


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
