"""Sign in with an API key of the service."""

from nicegui import ui

from console.access import SETTINGS, sign_in
from console.api import ApiError
from console.theme import FAULT


@ui.page("/sign-in")
def show_sign_in() -> None:
    """Draw the page."""
    ui.page_title("Sign in · Ventros Agents")
    with ui.card().classes("mx-auto mt-16 w-full max-w-md gap-3 p-6"):
        ui.label("Sign in").classes("text-2xl").props('role="heading" aria-level="1"')
        ui.label(f"The console uses the service at {SETTINGS.service_url} with your own key.")
        key = ui.input("API key", password=True, password_toggle_button=True).classes("w-full")
        key.props('autocomplete="current-password"')
        fault = ui.label().classes(FAULT).props('role="alert"')

        async def enter() -> None:
            fault.text = ""
            try:
                await sign_in(key.value or "")
            except ApiError as error:
                fault.text = error.message
            else:
                ui.navigate.to("/")

        key.on("keydown.enter", enter)
        ui.button("Sign in", on_click=enter).props("no-caps").classes("w-full")
        ui.label(
            "An operator creates keys: make keys ARGS='create --tenant … --scope sessions --scope takeover'"
        ).classes("text-sm opacity-80")
