"""The console's colours and focus ring: text has a contrast of 4.5 or more in light and in dark."""

from typing import Final

from nicegui import app, ui

# Classes of a text that says what is wrong.
FAULT: Final = "text-red-700 dark:text-red-300"
# Of diagrams and charts, whose lines are dark in both schemes.
DRAWING: Final = "bg-white rounded"
# Behind what each author of a conversation has said.
BUBBLES: Final = {
    "customer": "bg-gray-200 dark:bg-gray-700",
    "agent": "bg-blue-100 dark:bg-blue-900",
    "person": "bg-green-100 dark:bg-green-900",
}
# Behind the white text of a badge, by a conversation's state.
BADGES: Final = {"waiting": "deep-orange-10", "person": "blue-9", "agent": "green-9", "closed": "grey-8"}
# White text on them, and text of them on white, can be read; a text on a dark page is a lighter one.
_BRAND: Final = {"primary": "#1d4ed8", "positive": "#15803d", "negative": "#c10015"}
# The layer is after NiceGUI's own, and before the classes that an element asks for. The ring around what has
# the focus is white within black, so that it is seen on every ground; fields have Quasar's own.
_CSS: Final = f"""
@layer components {{
    .nicegui-link {{ color: {_BRAND["primary"]}; }}
    .body--dark .nicegui-link {{ color: #93c5fd; }}
    .body--dark .text-primary {{ color: #93c5fd !important; }}
    .body--dark .text-positive {{ color: #86efac !important; }}
    .body--dark .text-negative {{ color: #fca5a5 !important; }}
    :focus-visible:not(.q-field__native) {{
        outline: 2px solid white !important;
        box-shadow: 0 0 0 4px black !important;
    }}
}}
"""


def apply_theme() -> None:
    """Set the colours and styles of all pages."""
    app.colors(**_BRAND)
    # A bar over the page would show each request, and pages load their news again and again.
    app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.add_css(_CSS, shared=True)
