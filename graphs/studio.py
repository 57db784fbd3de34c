"""The graphs for LangGraph Studio: compiled without a checkpointer, as the dev server brings its own.

``langgraph.json`` names the attributes of this module; a test holds the two and the registry together.
"""

from core.models import chat_models
from core.settings import Settings
from graphs.registry import REGISTRY
from nodes.deps import Deps
from tools.catalogue import crm_tools
from tools.crm_client import CrmClient, crm_http_client


def _deps() -> Deps:
    settings = Settings.load()
    # Without a real CRM, the dev server itself serves the development CRM (see api/studio.py).
    base = settings.crm.api_base or f"http://127.0.0.1:{settings.server.studio_port}/crm"
    crm = CrmClient(crm_http_client(settings.crm, base), settings.crm)
    return Deps(
        models=chat_models(settings.models, settings.features),
        tools=crm_tools(crm, approve_messages_from=settings.approvals.message_risk),
        crm=crm,
    )


_DEPS = _deps()

react = REGISTRY["react"].build(_DEPS).compile(name="react")
