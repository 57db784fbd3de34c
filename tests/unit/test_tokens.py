"""Tokens of an issuer, and its keys."""

import asyncio
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode

from core.errors import IssuerUnavailable, Unauthenticated
from core.settings import AuthSettings
from service.auth.principal import Identity
from service.auth.tokens import MIN_INTERVAL_SECONDS, IssuerKeys, TokenVerifier, fetched, usable_keys
from tests.support.identity import AUDIENCE, ISSUER, Issuer
from tests.support.waiting import until


@dataclass
class Away:
    """An issuer's key set, which may be away; counts how often it is read."""

    body: bytes = b""
    away: bool = False
    reads: int = 0
    now: float = 1_000.0
    hold: asyncio.Event | None = field(default=None)

    async def read(self) -> bytes:
        self.reads += 1
        if self.hold:
            await self.hold.wait()
        if self.away:
            raise httpx.ConnectError("refused")
        return self.body


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def keys_at(source: Away, **limits: float) -> IssuerKeys:
    return IssuerKeys(
        source.read, **{"timeout": 5, "refresh_seconds": 300, **limits}, clock=lambda: source.now
    )


def tokens_of(issuer: Issuer, **settings: Any) -> TokenVerifier:
    auth = AuthSettings(
        jwt_jwks_url="https://issuer.example/keys", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, **settings
    )
    return TokenVerifier(keys_at(Away(issuer.key_set())), auth)


@pytest.mark.parametrize("kid", ["ec-1", "rsa-1"])
async def test_a_token_says_tenant_user_and_the_scopes_we_know(issuer: Issuer, kid: str) -> None:
    found = await tokens_of(issuer).verify(issuer.token(kid))
    assert found.identity == Identity("acme", "ana", frozenset({"runs"}), "token")
    assert found.seconds is not None
    assert 300 <= found.seconds <= 331


async def test_claims_may_have_other_names_and_scopes_be_a_list(issuer: Issuer) -> None:
    tokens = tokens_of(
        issuer, jwt_tenant_claim="https://x/org", jwt_user_claim="email", jwt_scopes_claim="may"
    )
    claims: dict[str, Any] = {"https://x/org": "beta", "email": "a@x", "may": ["audit", 7]}
    token = issuer.token(**claims)
    assert (await tokens.verify(token)).identity == Identity("beta", "a@x", frozenset({"audit"}), "token")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": time.time() - 31},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": time.time() + 86_400},
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": None},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": "a b"},
        {"tenant": ["acme"]},
        {"sub": None},
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(issuer: Issuer, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await tokens_of(issuer).verify(issuer.token(**claims))


async def test_the_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    await tokens_of(issuer).verify(issuer.token(exp=time.time() - 20, nbf=time.time() + 20))


def hs256(secret: bytes) -> str:
    """A token with a symmetric signature, made by hand as libraries refuse to."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "rsa-1"}, {"sub": "ana"})]
    signed = b".".join(map(base64url_encode, parts))
    return (signed + b"." + base64url_encode(hmac.digest(secret, signed, "sha256"))).decode()


async def test_a_token_signed_in_another_way_is_refused(issuer: Issuer) -> None:
    unsigned = jwt.encode({"sub": "ana"}, "", algorithm="none", headers={"kid": "rsa-1"})
    # The classic: the public key, which everyone has, as the secret of a symmetric signature.
    public = issuer.private["rsa-1"].public_key()
    symmetric = hs256(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    forged = issuer.token("ec-1", key=ec.generate_private_key(ec.SECP256R1()))
    crossed = issuer.token("rsa-1", key=issuer.private["ec-1"], algorithm="ES256")
    strong = issuer.token("rsa-1", algorithm="RS512")
    for token in (unsigned, symmetric, forged, crossed, strong, "", "a.b.c", issuer.token()[:-4]):
        with pytest.raises(Unauthenticated):
            await tokens_of(issuer).verify(token)


def test_keys_that_may_not_sign_are_left_out(issuer: Issuer) -> None:
    issuer.private["rsa-small"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.private["ec-384"] = ec.generate_private_key(ec.SECP384R1())
    try:
        listed = issuer.key_set()
    finally:
        del issuer.private["rsa-small"], issuer.private["ec-384"]
    assert set(usable_keys(listed)) == {"ec-1", "rsa-1"}
    for nothing in (b"[]", b"{}", b'{"keys": []}', b"<html>", b'{"keys": [{"kty": "oct", "k": "AA"}, 3]}'):
        with pytest.raises(ValueError, match=r"."):
            usable_keys(nothing)


async def test_a_new_key_is_found_at_once_and_a_flood_of_unknown_ones_asks_seldom(issuer: Issuer) -> None:
    source = Away(issuer.key_set("ec-1"))
    keys = keys_at(source)
    await keys.key("ec-1")
    source.body = issuer.key_set()
    source.now += MIN_INTERVAL_SECONDS
    assert (await keys.key("rsa-1")).key_id == "rsa-1"
    for number in range(100):
        with pytest.raises(Unauthenticated):
            await keys.key(f"made-up-{number}")
    assert source.reads == 2


async def test_the_old_keys_stay_while_the_issuer_is_away(issuer: Issuer) -> None:
    source = Away(issuer.key_set("ec-1"))
    keys = keys_at(source)
    await keys.key("ec-1")
    source.away = True
    source.now += 10_000
    assert (await keys.key("ec-1")).key_id == "ec-1"
    await until(lambda: source.reads == 2)
    with pytest.raises(Unauthenticated):
        await keys.key("rsa-1")


async def test_a_request_does_not_wait_for_keys_that_are_only_old(issuer: Issuer) -> None:
    source = Away(issuer.key_set("ec-1"))
    keys = keys_at(source)
    await keys.key("ec-1")
    source.hold = asyncio.Event()
    source.now += 301
    assert (await keys.key("ec-1")).key_id == "ec-1"
    await until(lambda: source.reads == 2)
    await keys.aclose()


async def test_an_issuer_that_never_answered_is_told_apart_from_a_bad_token() -> None:
    source = Away(away=True)
    with pytest.raises(IssuerUnavailable):
        await keys_at(source).key("ec-1")
    source.hold = asyncio.Event()
    with pytest.raises(IssuerUnavailable):
        await keys_at(source, timeout=0.01).key("ec-1")


async def test_many_first_tokens_read_the_set_once(issuer: Issuer) -> None:
    source = Away(issuer.key_set())
    keys = keys_at(source)
    await asyncio.gather(*(keys.key("ec-1") for _ in range(50)))
    assert source.reads == 1


async def test_the_set_is_fetched_with_bounds(issuer: Issuer) -> None:
    answers = {
        "/keys": httpx.Response(200, content=issuer.key_set()),
        "/moved": httpx.Response(302, headers={"Location": "http://169.254.169.254/"}),
        "/huge": httpx.Response(200, content=b"x" * 300_000),
        "/away": httpx.Response(503),
    }
    transport = httpx.MockTransport(lambda request: answers[request.url.path])
    async with httpx.AsyncClient(transport=transport) as http:
        assert usable_keys(await fetched(http, "https://issuer.example/keys")())
        for path in ("/moved", "/huge", "/away"):
            with pytest.raises((ValueError, httpx.HTTPError)):
                await fetched(http, f"https://issuer.example{path}")()
