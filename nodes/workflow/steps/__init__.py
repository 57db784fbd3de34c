"""What each type of step does, an executor a file."""

from collections.abc import Mapping
from typing import Any

from nodes.workflow.steps.agent_call import agent_call
from nodes.workflow.steps.api_call import api_call
from nodes.workflow.steps.approval import approval
from nodes.workflow.steps.data_processing import data_processing
from nodes.workflow.steps.database_query import database_query
from nodes.workflow.steps.wait import wait
from workflows.ports import Executor, StepPorts


def executors(ports: StepPorts) -> Mapping[str, Executor[Any]]:
    """The executors by the ``type`` of their step."""
    return {
        "api_call": api_call(ports.http, ports.effects),
        "database_query": database_query(ports.sql),
        "data_processing": data_processing,
        "agent": agent_call(ports.graphs),
        "wait": wait,
        "approval": approval,
    }
