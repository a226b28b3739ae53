"""What tests do with a dashboard that is open, and read off it."""

from typing import Any

GO = "state => new Promise((done) => { addEventListener('hashchange', done, { once: true }); location.hash = state; })"


def shown(page: Any) -> list[int]:
    """Numbers of the latents in the table, from top to bottom."""
    return [int(text) for text in page.locator("#table tbody a").all_text_contents()]


def go(page: Any, state: str) -> None:
    """To another state of the page that is open, and until it has drawn it."""
    page.evaluate(GO, state)
    if page.locator("#latent-view").is_visible():
        page.locator(".facts").wait_for()


def heading(page: Any) -> str:
    page.locator(".facts").wait_for()
    return page.locator("#latent-view h2").text_content()


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


def at_latent(page: Any, latent: int) -> None:
    """Waits until a latent is shown. (Waiting for an expression would need eval, which the page's policy forbids.)"""
    page.get_by_role("heading", name=f"Latent {latent}", exact=True).wait_for()
    page.locator(".facts").wait_for()
