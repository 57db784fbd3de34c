"""What holders of API keys and tokens notice."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from checkpoints.embedded import running_postgres_url
from core.errors import IssuerUnavailable, NotFound
from core.settings import AuthSettings
from service.auth.api_keys import KeyStore
from service.auth.authenticator import Authenticator, CredentialCache
from service.auth.tokens import IssuerKeys, TokenVerifier
from service.cli import keys
from service.cli.keys import record_key_change
from tests.support.identity import AUDIENCE, ISSUER, Issuer, KeySetSource, bearer, key_of
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import RunningService, running_service
from tests.support.waiting import until

ISSUER_OF_TOKENS = Issuer()


@pytest.fixture(scope="module")
async def running(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    key_set = tmp_path_factory.mktemp("issuer") / "jwks.json"
    key_set.write_bytes(ISSUER_OF_TOKENS.key_set())
    auth = AuthSettings(
        api_keys=True,
        # Credentials expire from the cache before the next request.
        cache_seconds=1e-9,
        jwt_jwks_file=key_set,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    )
    async with running_service(
        shared_database_url, scripted_models(ScriptedChatModel()), auth=auth
    ) as service:
        yield service


async def status(running: RunningService, credential: str) -> int:
    return (await running.http.get("/info", headers=bearer(credential))).status_code


async def test_without_a_key_only_health_answers(running: RunningService) -> None:
    for path in ("/info", "/docs", "/openapi.json", "/react/playground/", "/v1/approvals", "/nowhere"):
        refused = await running.http.get(path)
        assert (refused.status_code, refused.json()["error"]) == (401, "unauthenticated"), path
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="ventros-agents"'
        assert refused.headers["X-Request-Id"]
    refused = await running.http.post("/react/stream", json={"input": {}})
    assert (refused.status_code, set(refused.json())) == (401, {"error", "message", "details"})
    assert (await running.http.get("/health")).status_code == 200


async def test_a_credential_that_is_not_a_key_is_rejected(running: RunningService) -> None:
    made = await KeyStore(running.service.pool).create("acme", ["runs"])
    other = made.text[:-1] + ("A" if made.text[-1] != "A" else "B")
    for wrong in (other, made.text[:-1], "va_", "x" * 9_000, "a.b.c"):
        refused = await running.http.get("/info", headers=bearer(wrong))
        assert refused.status_code == 401, wrong
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="ventros-agents", error="invalid_token"'
    assert await status(running, made.text) == 200


async def test_the_database_does_not_store_secrets_of_keys(running: RunningService) -> None:
    made = await KeyStore(running.service.pool).create("acme", ["runs"])
    async with running.service.pool.connection() as connection:
        rows = await (await connection.execute("SELECT k::text AS row FROM auth.api_keys k")).fetchall()
    assert not any(made.text.rpartition("_")[2] in row["row"] for row in rows)


async def test_a_revoked_key_is_rejected(running: RunningService) -> None:
    keys = KeyStore(running.service.pool)
    made = await keys.create("acme", ["runs"])
    assert await status(running, made.text) == 200
    await keys.revoke(made.id)
    refused = await running.http.get("/info", headers=bearer(made.text))
    assert (refused.status_code, "revoked" in refused.json()["message"]) == (401, True)


async def test_a_rotated_key_works_until_its_grace_period_is_over(running: RunningService) -> None:
    keys = KeyStore(running.service.pool)
    old = await keys.create("acme", ["runs"], user="crm")
    new = await keys.rotate(old.id, grace=timedelta(hours=1))
    assert [await status(running, key.text) for key in (old, new)] == [200, 200]
    newest = await keys.rotate(new.id, grace=timedelta(0))
    assert [await status(running, key.text) for key in (new, newest)] == [401, 200]
    [entry] = [entry for entry in await keys.list_keys("acme") if entry.id == newest.id]
    assert (entry.user_id, entry.scopes, entry.is_valid) == ("crm", ["runs"], True)
    assert entry.last_used_at


async def test_changes_to_keys_are_in_their_tenants_audit_trail(running: RunningService) -> None:
    keys = KeyStore(running.service.pool, record_key_change)
    made = await keys.create("audited", ["runs"])
    successor = await keys.rotate(made.id, grace=timedelta(0))
    await keys.revoke(successor.id)
    auditor = await keys.create("audited", ["audit"])
    told = (await running.http.get("/v1/audit?action=key", headers=bearer(auditor.text))).json()["entries"]
    assert [(entry["tool"], entry["outcome"]) for entry in told] == [
        (auditor.id, "created"),
        (successor.id, "revoked"),
        (successor.id, "rotated"),
        (made.id, "created"),
    ]
    assert made.text.rpartition("_")[2] not in str(told)


async def test_an_expired_key_is_rejected(running: RunningService) -> None:
    keys = KeyStore(running.service.pool)
    over = await keys.create("acme", ["runs"], lifetime=timedelta(seconds=-1))
    refused = await running.http.get("/info", headers=bearer(over.text))
    assert (refused.status_code, "has expired" in refused.json()["message"]) == (401, True)


async def test_a_token_of_the_issuer_carries_its_tenant_and_scopes(running: RunningService) -> None:
    token = bearer(ISSUER_OF_TOKENS.token("rsa-1", scope="approvals"))
    assert (await running.http.get("/v1/approvals", headers=token)).json()["approvals"] == []
    refused = await running.http.post("/react/invoke", json={}, headers=token)
    assert (refused.status_code, refused.json()["details"]["scopes"]) == (403, ["approvals"])
    over = await running.http.get("/info", headers=bearer(ISSUER_OF_TOKENS.token(exp=1)))
    assert (over.status_code, "expired" in over.json()["message"]) == (401, True)


async def test_api_keys_are_verified_while_tokens_wait_for_a_hanging_issuer(running: RunningService) -> None:
    source = KeySetSource(unavailable=True, gate=threading.Event())
    keys = IssuerKeys(source.read, timeout=60, refresh_seconds=300)
    store = KeyStore(running.service.pool)
    authenticator = Authenticator(
        keys=store,
        tokens=TokenVerifier(keys, running.service.settings.auth),
        cache=CredentialCache(seconds=10),
    )
    tokens = [ISSUER_OF_TOKENS.token(jti=str(number)) for number in range(8)]
    waiting = [asyncio.create_task(authenticator.identify(f"Bearer {token}")) for token in tokens]
    await until(lambda: source.reads == 1)
    key = await store.create("acme", ["runs"])
    assert (await authenticator.identify(f"Bearer {key.text}")).tenant == "acme"
    assert source.gate
    source.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {IssuerUnavailable}


async def test_a_scope_opens_its_own_routes_and_no_others(running: RunningService) -> None:
    runs = await key_of(running.service, "acme", "runs")
    assert (await running.http.get("/react/input_schema", headers=runs)).status_code == 200
    refused = await running.http.get("/v1/approvals", headers=runs)
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    assert refused.json()["details"] == {"scope": "approvals", "scopes": ["runs"]}
    assert 'error="insufficient_scope", scope="approvals"' in refused.headers["WWW-Authenticate"]
    approvals = await key_of(running.service, "acme", "approvals")
    assert (await running.http.get("/v1/approvals", headers=approvals)).status_code == 200
    assert (await running.http.post("/react/invoke", json={}, headers=approvals)).status_code == 403
    admin = await key_of(running.service, "acme", "admin")
    assert (await running.http.get("/v1/approvals", headers=admin)).status_code == 200
    assert (await running.http.get("/nowhere", headers=admin)).status_code == 404


async def test_a_browser_asks_for_the_key_and_pages_of_other_sites_cannot_use_it(
    running: RunningService,
) -> None:
    page = {"Accept": "text/html,*/*"}
    asked = await running.http.get("/react/playground/", headers=page)
    assert asked.headers["WWW-Authenticate"] == 'Basic realm="ventros-agents", charset="UTF-8"'
    key = (await key_of(running.service, "acme", "runs"))["Authorization"].removeprefix("Bearer ")
    as_browser = {"headers": page, "auth": ("anything", key)}
    assert (await running.http.get("/react/playground/", **as_browser)).status_code == 200  # type: ignore[arg-type]
    elsewhere = await running.http.post(
        "/react/invoke", json={}, headers={"Origin": "https://evil.example"}, auth=("", key)
    )
    assert (elsewhere.status_code, elsewhere.json()["error"]) == (403, "forbidden")
    own = await running.http.post("/react/invoke", json={}, headers={"Origin": running.url}, auth=("", key))
    assert own.status_code == 422


async def test_the_command_creates_lists_rotates_and_revokes(
    running: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(line: str) -> str:
        await keys.run_command(running.service.settings, keys.build_parser().parse_args(line.split()))
        return capsys.readouterr().out.strip()

    made = await run("create --tenant ops --scope runs --scope audit --user ana --expires 90d")
    assert await status(running, made) == 200
    rotated = await run(f"rotate {made} --grace 1h")
    listed = await run("list --tenant ops")
    assert [listed.count(word) for word in ("valid", "ana", "runs audit", "acme")] == [2, 2, 2, 0]
    assert not any(secret.rpartition("_")[2] in listed for secret in (made, rotated))
    await run(f"revoke {rotated[:19]}")
    assert [await status(running, key) for key in (made, rotated)] == [200, 401]
    assert "revoked" in await run("list --tenant ops")
    with pytest.raises(NotFound, match="there is no key"):
        await run("revoke 0123456789abcdef")


@pytest.mark.parametrize(
    "line",
    [
        "create --tenant acme",
        "create --tenant a/../b! --scope runs",
        "create --tenant acme --scope everything",
        "create --tenant acme --scope runs --expires soon",
        "revoke short",
    ],
)
def test_the_command_explains_invalid_arguments(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        keys.build_parser().parse_args(line.split())
    assert "error:" in capsys.readouterr().err


def test_the_command_finds_the_database_of_a_running_service(postgres: str, tmp_path: Path) -> None:
    cluster = Path(parse_qs(urlsplit(postgres).query)["host"][0])
    assert running_postgres_url(cluster.parent) == postgres
    assert running_postgres_url(tmp_path) is None
