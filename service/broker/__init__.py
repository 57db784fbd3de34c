"""RabbitMQ: events out, commands in. This package alone imports aio-pika."""

from service.broker.commands import CommandRefused, MessageCommand, consume_commands
from service.broker.publisher import publish_events

__all__ = ["CommandRefused", "MessageCommand", "consume_commands", "publish_events"]
