"""Pictures of the gateway's pages in both themes, of an invented ward: `python -m samd_scripts.screenshots`.

Needs Chromium, and Playwright of the development dependencies. With `--gateway` it takes the pages of a
gateway that is running, whatever is on them.
"""

import argparse
import contextlib
import functools
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samd_scripts.invented_ward import InventedWard
from samd_scripts.stack import Stack, StackError, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"laptop": (1366, 900), "wall": (1920, 1080), "phone": (390, 844)}
PAGES: dict[str, tuple[str, str]] = {
    "ward": ("/", "laptop"),
    "ward-wall": ("/?mode=wall", "wall"),
    "ward-phone": ("/", "phone"),
    "patient": ("/patient/bed-01?range=24h", "laptop"),
    "fleet": ("/fleet", "laptop"),
    "runs": ("/runs", "laptop"),
    "models": ("/models", "laptop"),
    "audit": ("/audit", "laptop"),
    "settings": ("/settings", "laptop"),
}
"""Name of the picture: address and size."""
BEDS = 12
ADMITTED = (3, 7)
"""Beds of which a pseudonym and a ward are known; what was before the admission is not of this patient."""
THEMES = ("dark", "light")
COLOURS = 200
"""A picture keeps so many: a page of flat colours loses nothing by it, and is a third of the size."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all are written, 1 when a part failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pages"), metavar="DIR")
    parser.add_argument(
        "--gateway", metavar="URL", help="one that is running (default: starts an invented ward)"
    )
    parser.add_argument("--language", choices=("en", "ko"), default="en")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)} (default: all)")
    args = parser.parse_args(argv)
    unknown = [name for name in args.pages if name not in PAGES]
    if unknown:
        print(f"screenshots: no page {unknown[0]!r}; there are {', '.join(PAGES)}", file=sys.stderr)
        return 2
    if shutil.which("chromium") is None:
        print("screenshots: chromium is not installed: apt install chromium", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with _gateway(args.gateway) as url:
            _take(url, args.out, args.pages or list(PAGES), args.language)
    except (StackError, RuntimeError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _gateway(url: str | None) -> Iterator[str]:
    """The address of a gateway with something on its pages."""
    if url is not None:
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        stack.broker()
        stack.wait_ready(stack.gateway())
        with InventedWard(stack.broker_url, BEDS) as ward:
            for number in ADMITTED:
                bed = ward.beds[number - 1]
                admit = functools.partial(_admit, stack, bed.name, number)
                wait_until(admit, timeout=30.0, what=f"{bed.name} admitted")
                bed.wait_admitted()
            ward.play()
            wait_until(lambda: _complete(stack), timeout=30.0, what="cards of all beds")
            yield stack.gateway_url


def _admit(stack: Stack, device: str, number: int) -> bool:
    """Whether the gateway took it: it knows a device only once it has heard of it."""
    body = {"admission": f"P-{4200 + 37 * number}", "bed": f"{number}", "ward": "4 East"}
    try:
        stack.api("POST", f"/api/ward/{device}/admit", json=body)
    except StackError:
        return False
    return True


def _complete(stack: Stack) -> bool:
    cards: list[dict[str, Any]] = stack.api("GET", "/api/ward")["cards"]
    return len(cards) == BEDS and all(card["news2"] is not None for card in cards)


def _take(url: str, out: Path, names: Sequence[str], language: str) -> None:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--headless", "--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        for theme in THEMES:
            for name in names:
                try:
                    image = _picture(browser, url, *PAGES[name], theme=theme, language=language)
                except Error as error:
                    raise StackError(f"page {name}: {str(error).splitlines()[0]}") from error
                path = out / f"{name}-{theme}.png"
                path.write_bytes(_small(image))
                print(f"{path} ({path.stat().st_size // 1024} kB)", flush=True)
        browser.close()


def _picture(browser: "Browser", url: str, address: str, size: str, *, theme: str, language: str) -> bytes:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB")
    context.add_cookies(
        [
            {"name": "samd_theme", "value": theme, "url": url},
            {"name": "samd_language", "value": language, "url": url},
        ]
    )
    try:
        page = context.new_page()
        page.goto(url + address)
        page.wait_for_selector("[data-live=live]", timeout=30_000)
        page.wait_for_timeout(1500)  # plots draw themselves
        return page.screenshot()
    finally:
        context.close()


def _small(png: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        found = io.BytesIO()
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
    return found.getvalue()


if __name__ == "__main__":
    sys.exit(main())
