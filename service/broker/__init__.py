"""RabbitMQ: events out, commands in. This package alone imports aio-pika."""

from service.broker.messages import CommandRefused, MessageCommand
from service.broker.opening import consume_commands, publish_events

__all__ = ["CommandRefused", "MessageCommand", "consume_commands", "publish_events"]
