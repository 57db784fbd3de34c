"""Tokens of an issuer, and its keys."""

import asyncio
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode
from jwt.warnings import InsecureKeyLengthWarning

from core.errors import IssuerUnavailable, Unauthenticated
from core.settings import AuthSettings
from service.auth.principal import Identity
from service.auth.tokens import (
    MIN_READ_INTERVAL_SECONDS,
    IssuerKeys,
    TokenVerifier,
    open_token_verifier,
)
from tests.support.identity import AUDIENCE, ISSUER, Issuer, KeySetSource
from tests.support.waiting import until


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def keys_of(source: KeySetSource, **limits: float) -> IssuerKeys:
    return IssuerKeys(
        source.read, **{"timeout": 5, "refresh_seconds": 300, **limits}, clock=lambda: source.now
    )


def tokens_of(issuer: Issuer, **settings: Any) -> TokenVerifier:
    auth = AuthSettings(
        jwt_jwks_url="https://issuer.example/keys", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, **settings
    )
    return TokenVerifier(keys_of(KeySetSource(issuer.key_set())), auth)


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
        {"exp": 1e308},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": time.time() + 2 * 86_400},
        # Issued long ago, for too long.
        {"exp": time.time() + 60, "iat": time.time() - 90_000},
        {"iat": float("inf")},
        {"nbf": float("inf")},
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


async def test_keys_that_are_too_weak_or_of_another_kind_are_not_accepted(issuer: Issuer) -> None:
    issuer.private["rsa-small"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.private["ec-384"] = ec.generate_private_key(ec.SECP384R1())
    try:
        tokens = tokens_of(issuer)
        with pytest.warns(InsecureKeyLengthWarning):
            weak = issuer.token("rsa-small")
        for token in (weak, issuer.token("ec-384", algorithm="ES384")):
            with pytest.raises(Unauthenticated):
                await tokens.verify(token)
        await tokens.verify(issuer.token("rsa-1"))
    finally:
        del issuer.private["rsa-small"], issuer.private["ec-384"]


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"keys": []}', b"<html>", b'{"keys": [{"kty": "oct", "k": "AA"}, 3]}']
)
async def test_a_set_without_a_usable_key_counts_as_none(body: bytes) -> None:
    with pytest.raises(IssuerUnavailable):
        await keys_of(KeySetSource(body)).get("ec-1")


async def test_a_new_key_is_found_at_once_and_unknown_keys_do_not_cause_reads(issuer: Issuer) -> None:
    source = KeySetSource(issuer.key_set("ec-1"))
    keys = keys_of(source)
    await keys.get("ec-1")
    source.body = issuer.key_set()
    source.now += MIN_READ_INTERVAL_SECONDS
    assert (await keys.get("rsa-1")).key_id == "rsa-1"
    for number in range(100):
        with pytest.raises(Unauthenticated):
            await keys.get(f"made-up-{number}")
    assert source.reads == 2


async def test_the_old_keys_stay_in_use_while_the_issuer_is_unavailable(issuer: Issuer) -> None:
    source = KeySetSource(issuer.key_set("ec-1"))
    keys = keys_of(source)
    await keys.get("ec-1")
    source.unavailable = True
    source.now += 10_000
    assert (await keys.get("ec-1")).key_id == "ec-1"
    await until(lambda: source.reads == 2)
    with pytest.raises(Unauthenticated):
        await keys.get("rsa-1")


async def test_a_known_key_does_not_wait_for_a_refresh(issuer: Issuer) -> None:
    source = KeySetSource(issuer.key_set("ec-1"))
    keys = keys_of(source)
    await keys.get("ec-1")
    source.gate = threading.Event()
    source.now += 301
    assert (await keys.get("ec-1")).key_id == "ec-1"
    await until(lambda: source.reads == 2)
    source.gate.set()


async def test_an_issuer_that_never_answered_is_not_a_bad_token() -> None:
    with pytest.raises(IssuerUnavailable):
        await keys_of(KeySetSource(unavailable=True)).get("ec-1")


async def test_a_hanging_issuer_occupies_one_thread_however_many_tokens_wait_for_it() -> None:
    source = KeySetSource(unavailable=True, gate=threading.Event())
    keys = keys_of(source, timeout=0.01)
    for _ in range(3):
        waiting = [asyncio.create_task(keys.get(f"made-up-{number}")) for number in range(20)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {IssuerUnavailable}
        source.now += MIN_READ_INTERVAL_SECONDS
    assert source.reads == 1
    assert source.gate
    source.gate.set()


async def test_many_first_tokens_read_the_set_once(issuer: Issuer) -> None:
    source = KeySetSource(issuer.key_set())
    keys = keys_of(source)
    await asyncio.gather(*(keys.get("ec-1") for _ in range(50)))
    assert source.reads == 1


@pytest.mark.parametrize(
    ("path", "error"), [("/keys", None), ("/moved", IssuerUnavailable), ("/away", IssuerUnavailable)]
)
async def test_the_set_is_read_from_its_address_without_following_redirects(
    issuer: Issuer, path: str, error: type[Exception] | None
) -> None:
    with jwks_server(issuer.key_set()) as url:
        auth = AuthSettings(jwt_jwks_url=f"{url}{path}", jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
        tokens = open_token_verifier(auth)
        assert tokens
        with pytest.raises(error) if error else nullcontext():
            assert (await tokens.verify(issuer.token())).identity.tenant == "acme"


@contextmanager
def jwks_server(body: bytes) -> Iterator[str]:
    """An issuer on a real socket: its set at ``/keys``, a redirect to it at ``/moved``, else 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/keys": 200, "/moved": 302}.get(self.path, 503))
            self.send_header("Location", "/keys")
            self.end_headers()
            if self.path == "/keys":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
