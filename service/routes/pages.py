"""The pages for people: the start page, the API's documentation, and a playground for each graph.

Their files are in ``service/pages``. Nothing on them comes from another host, and no script is in a page, so
that a strict content security policy holds for all of them.
"""

import json
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

import fastapi_offline
from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from core.errors import NotFound
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from service.lifespan import Service
from service.routes.dependencies import OpenService
from service.version import VERSION

_PAGES: Final = Path(__file__).parent.parent / "pages"
# The package's distribution of Swagger UI; of the rest of it nothing is used.
_SWAGGER_UI: Final = Path(fastapi_offline.__file__).parent / "static"
_ASSETS: Final = {
    "pages.css": _PAGES,
    "docs.js": _PAGES,
    "playground.js": _PAGES,
    "swagger-ui.css": _SWAGGER_UI,
    "swagger-ui-bundle.js": _SWAGGER_UI,
}


def pages_router() -> APIRouter:
    """Return the router of the start page, ``/docs``, the playgrounds and what they load."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def show_home(service: OpenService) -> HTMLResponse:
        """Say what runs, and link to the other pages."""
        return _render("home.html", **_describe(service))

    @router.get("/docs")
    async def show_docs() -> HTMLResponse:
        """Show the OpenAPI document in Swagger UI."""
        return _render("docs.html", title="Ventros Agents: HTTP API", assets="assets")

    @router.get("/assets/{name}")
    async def get_asset(name: str) -> FileResponse:
        """Return a script or style sheet of the pages."""
        if name not in _ASSETS:
            raise NotFound(f"there is no asset {name[:100]!r}")
        return FileResponse(_ASSETS[name] / name, headers={"Cache-Control": "no-cache"})

    for spec in REGISTRY.values():
        router.add_api_route(f"/{spec.name}/playground/", _build_playground(spec))
    return router


def crm_docs_router() -> APIRouter:
    """Return the router of ``/crm/docs``, for a service that serves the development CRM."""
    router = APIRouter(include_in_schema=False)

    @router.get("/crm/docs")
    async def show_crm_docs() -> HTMLResponse:
        """Show the development CRM's OpenAPI document in Swagger UI."""
        return _render("docs.html", title="Development CRM: HTTP API", assets="../assets")

    return router


def _build_playground(spec: GraphSpec) -> Any:
    page = _render(
        "playground.html",
        name=escape(spec.name),
        description=escape(spec.description),
        example=escape(json.dumps(dict(spec.example), indent=2, ensure_ascii=False)),
    )

    async def show_playground() -> HTMLResponse:
        """Show the page on which a person runs the graph."""
        return page

    return show_playground


def _describe(service: Service) -> dict[str, str]:
    rows = [
        f'<tr><td><a href="{spec.name}/playground/">{spec.name}</a></td>'
        f"<td>{escape(spec.description)}</td><td>{escape(spec.suits)}</td></tr>"
        for spec in REGISTRY.values()
    ]
    model = service.model
    kind = "" if model.is_language_model else " (not a language model)"
    return {
        "version": escape(VERSION),
        "model": f"<strong>{escape(model.model)}</strong>{kind} answers: {escape(model.why)}.",
        "crm": '<li><a href="crm/docs">Development CRM</a></li>' if service.development_crm else "",
        "graphs": "\n      ".join(rows),
    }


def _render(page: str, **values: str) -> HTMLResponse:
    """Return a page with values that are HTML already."""
    return HTMLResponse(_load(page).substitute(values))


@cache
def _load(page: str) -> Template:
    return Template((_PAGES / page).read_text())
