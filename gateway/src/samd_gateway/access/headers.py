"""Headers that every answer carries, against what a browser would otherwise allow others to do with it."""

from starlette.datastructures import MutableHeaders

# NiceGUI builds its pages by inline scripts and by `eval`; nothing comes from any other host.
PAGES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
FORM = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For the login page, which needs no script."""
NOTHING = "default-src 'none'; frame-ancestors 'none'"


def secure(headers: MutableHeaders) -> None:
    """Add what is not there already."""
    html = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("content-security-policy", PAGES if html else NOTHING)
    headers.setdefault("x-content-type-options", "nosniff")
    headers.setdefault("x-frame-options", "DENY")
    # not `no-referrer`: with that a browser sends `Origin: null` with our own forms
    headers.setdefault("referrer-policy", "same-origin")
    headers.setdefault("cross-origin-opener-policy", "same-origin")
    headers.setdefault("cross-origin-resource-policy", "same-origin")
    headers.setdefault("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
    headers.setdefault("cache-control", "no-store")
