"""Pictures of a dashboard for the documents:

    python tests/browser/take_screenshots.py DASHBOARD.html docs/images [LATENT]

writes dashboard.png (the list) and dashboard_latent.png (LATENT, or the first one that fired), and beside them what
they look like in the dark and on a phone, to be looked at and not to be kept: names that begin with look_.
"""

import sys
from pathlib import Path
from typing import Any

from chromium import chromium

WIDE, PHONE = (1280, 860), (360, 740)
ALIVE = "#firing=alive"


def take(browser: Any, address: str, path: Path, size: tuple[int, int], theme: str) -> None:
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.goto(address)
    page.locator("#status:not(:empty), .facts").first.wait_for()
    page.screenshot(path=path)
    page.close()


def main(dashboard: str, folder: str, latent: str | None = None) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    address = Path(dashboard).resolve().as_uri()
    with chromium() as browser:
        if latent is None:
            page = browser.new_page()
            page.goto(f"{address}{ALIVE}")
            latent = page.locator("#table tbody a").first.text_content()
            page.close()
        views = {"dashboard": f"{address}{ALIVE}", "dashboard_latent": f"{address}#latent={latent}"}
        for name, view in views.items():
            take(browser, view, target / f"{name}.png", WIDE, "light")
            take(browser, view, target / f"look_{name}_dark.png", WIDE, "dark")
            take(browser, view, target / f"look_{name}_phone.png", PHONE, "light")
            take(browser, view, target / f"look_{name}_phone_dark.png", PHONE, "dark")


if __name__ == "__main__":
    main(*sys.argv[1:])
