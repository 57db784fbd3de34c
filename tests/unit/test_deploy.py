"""The compose file: its containers find each other, and what it sets are settings."""

from typing import Any

import pytest
from pydantic import SecretStr

from console.settings import ConsoleSettings
from core.settings import GROUPS, MemorySettings, env_name
from tests.support.process import PROJECT
from workflows.loader import SafeYAML

COMPOSE: dict[str, Any] = SafeYAML().load((PROJECT / "deploy" / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "ventros-agents:latest"]
SETTINGS = {env_name(group, field) for group in GROUPS.values() for field in group.model_fields}


def list_secrets(service: str) -> dict[str, str]:
    """Return the secret in each file of a container."""
    listed = [
        {"source": each, "target": each} if isinstance(each, str) else each
        for each in SERVICES[service].get("secrets", [])
    ]
    return {each["target"]: each["source"] for each in listed}


def test_every_secret_and_every_dependency_is_defined() -> None:
    for name, service in SERVICES.items():
        assert set(list_secrets(name).values()) <= COMPOSE["secrets"].keys()
        assert set(service.get("depends_on", {})) <= SERVICES.keys()


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_of_ours_is_given_are_settings(name: str) -> None:
    assert SERVICES[name]["environment"].keys() | list_secrets(name).keys() <= SETTINGS


def test_the_service_waits_for_the_memory_service_and_knows_its_address_and_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**SERVICES["service"]["environment"], **SERVICES["memory"]["environment"]}.items():
        monkeypatch.setenv(name, value)
    settings = MemorySettings(_env_file=None, grpc_token=SecretStr("any"))
    assert settings.grpc_target == f"memory:{settings.serve_port}"
    assert f":{settings.serve_port}" in SERVICES["memory"]["healthcheck"]["test"][-1]
    assert SERVICES["service"]["depends_on"]["memory"] == {"condition": "service_healthy"}
    assert list_secrets("service")["MEMORY_GRPC_TOKEN"] == list_secrets("memory")["MEMORY_GRPC_TOKEN"]


def test_the_console_knows_the_service_and_listens_beyond_its_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = SERVICES["console"]
    for name, value in console["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONSOLE_SECRET", "what-the-file-holds")
    settings = ConsoleSettings.load()
    [published] = console["ports"]
    assert settings.service_url == "http://service:8000"
    assert (settings.host, published) == ("0.0.0.0", f"127.0.0.1:{settings.port}:{settings.port}")
    assert settings.secret == "what-the-file-holds"
    assert list_secrets("console") == {"CONSOLE_SECRET": "CONSOLE_SECRET"}
    assert "CONSOLE_SECRET=$$(cat /run/secrets/CONSOLE_SECRET)" in console["command"][-1]


def test_the_memory_service_has_a_database_of_its_own() -> None:
    assert list_secrets("service")["DATABASE_URL"] == "DATABASE_URL"
    assert list_secrets("memory")["DATABASE_URL"] == "MEMORY_DATABASE_URL"
    assert "MEMORY_GRPC_TARGET" not in SERVICES["memory"]["environment"]
