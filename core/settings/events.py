"""Events for the CRM: how long they are kept, webhooks, RabbitMQ, and the WhatsApp gateway."""

from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from core.settings.base import Seconds, group_config
from core.settings.runs import AllowedHost, parse_hosts

# Any host at a public address.
ANY_HOST: Final = "*"
# A tenant's name as credentials hold it.
TenantName = Annotated[str, Field(pattern=r"^[\w.:@+|/-]{1,200}$")]


class EventSettings(BaseSettings):
    """Domain events: messages answered, hand-offs, approvals, sessions, facts, deals, workflows."""

    model_config = group_config("EVENT_")

    keep_days: float = Field(
        7,
        gt=0,
        le=365,
        description="How long events are kept, also for receivers that are away; as long, delivered ones can "
        "be delivered again",
    )


class WebhookSettings(BaseSettings):
    """Delivery of events to webhooks."""

    model_config = group_config("WEBHOOK_")

    allowed_hosts: str = Field(
        ANY_HOST,
        description="Comma-separated hosts that webhooks may be at: *, any host (https at a public address); "
        "hooks.example.com, that host alone; or a host with its port, localhost:8080 (at any address). "
        "Connections are kept open to hosts that are named",
    )
    concurrency: int = Field(
        32, ge=1, le=1_000, description="Most deliveries of this process at once, of all tenants"
    )
    timeout_seconds: Seconds = Field(10, description="Time limit of one attempt")
    retry_hours: float = Field(
        24,
        gt=0,
        le=720,
        description="How long a delivery is tried, with growing pauses, until it is given up",
    )
    disable_hours: float = Field(
        72,
        gt=0,
        le=8_760,
        description="An endpoint at which nothing succeeded for this long is disabled until somebody enables "
        "it; its events wait",
    )
    rotation_hours: float = Field(
        24, ge=0, le=720, description="How long the secret before a rotation still signs beside the new one"
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: str) -> str:
        parse_hosts(_drop_any(hosts))
        return hosts

    @property
    def hosts(self) -> list[AllowedHost]:
        """The hosts that are named."""
        return parse_hosts(_drop_any(self.allowed_hosts))

    @property
    def allows_any(self) -> bool:
        """Whether any host at a public address is allowed beside them."""
        return ANY_HOST in self.allowed_hosts


class AmqpSettings(BaseSettings):
    """RabbitMQ: commands of the CRM in, events out."""

    model_config = group_config("AMQP_")

    url: SecretStr | None = Field(
        None, description="amqp:// or amqps:// address of a RabbitMQ broker; unset: none is used"
    )
    events_exchange: str = Field(
        "ventros.events",
        min_length=1,
        max_length=200,
        description="Topic exchange that events are published to, with the routing key tenant.type",
    )
    commands_queue: str = Field(
        "ventros.commands",
        max_length=200,
        description="Queue of message.received commands; what cannot be used goes to the queue of this name "
        "with .dead at its end. Empty: no commands are consumed",
    )
    prefetch: int = Field(
        20,
        ge=1,
        le=1_000,
        description="Most commands that this process holds without a place to execute them",
    )
    tenants: tuple[Annotated[str, Field(pattern=r"^(\*|[\w.:@+|/-]{1,200})$")], ...] = Field(
        ("default",),
        description='Tenants that a command may name, as JSON: ["acme"]; ["*"]: any. Whoever may publish to '
        "the queue acts for all of them",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and url.get_secret_value().partition("://")[0] not in {"amqp", "amqps"}:
            raise ValueError("must start with amqp:// or amqps://")
        return url


class WhatsAppSettings(BaseSettings):
    """The WhatsApp gateway (WAHA) that sends customers' messages to POST /v1/gateways/whatsapp."""

    model_config = group_config("WHATSAPP_")

    hmac_key: SecretStr | None = Field(
        None,
        description="Key with which the gateway signs its webhooks (in WAHA: WHATSAPP_HOOK_HMAC_KEY); unset: "
        "the route is off",
    )
    tenant: TenantName = Field("default", description="Tenant whose customers write over the gateway")

    @field_validator("hmac_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key and len(key.get_secret_value()) < _MIN_KEY_CHARACTERS:
            raise ValueError(f"must have at least {_MIN_KEY_CHARACTERS} characters")
        return key


_MIN_KEY_CHARACTERS: Final = 16


def _drop_any(hosts: str) -> str:
    return ",".join(host for host in hosts.split(",") if host.strip() != ANY_HOST)
