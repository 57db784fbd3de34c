"""What the operator reads when the service is up."""

import json

from core.embeddings import embedder_kind
from graphs.registry import REGISTRY
from service.lifespan import Service
from service.version import VERSION


def banner(service: Service, base_url: str) -> str:
    """A few lines: what runs, which model and why, where to look, and a curl line to paste."""
    settings = service.settings
    data_dir = settings.server.data_dir
    database = "external (DATABASE_URL)" if settings.database.url else f"embedded, in {data_dir}"
    crm = settings.crm.api_base or f"development CRM, {base_url}/crm"
    playgrounds = "  ".join(f"{base_url}/{name}/playground/" for name in REGISTRY)
    router = service.agents.router
    example = json.dumps({"input": REGISTRY["react"].example})
    return "\n".join(
        [
            "",
            f"  Ventros Agents {VERSION}",
            f"  model       {service.model.model}  ({service.model.why})",
            f"  routing     {len(service.agents.specs)} agents, by {router.model} ({embedder_kind(router.model)})",
            f"  graphs      {', '.join(REGISTRY)}",
            f"  database    {database}",
            f"  CRM         {crm}",
            f"  docs        {base_url}/docs",
            f"  playground  {playgrounds}",
            "",
            "  try it:",
            f"  curl -s {base_url}/react/invoke -H 'Content-Type: application/json' \\",
            f"    -d {_quoted(example)}",
            "",
        ]
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
