"""What the login page has to show, and a plain form for a gateway that serves no other pages."""

from html import escape
from typing import Literal

import msgspec

Trouble = Literal["wrong", "throttled", "form", "signed-out", "single-sign-on"]

TEXTS: dict[Trouble, str] = {
    "wrong": "Name or password is not right, or the user is disabled.",
    "throttled": "Too many failed attempts. Try again in {wait_s} seconds.",
    "form": "The form was too old. Try again.",
    "signed-out": "You are signed out.",
    "single-sign-on": "Single sign-on did not succeed: {detail}",
}


class LoginForm(msgspec.Struct, frozen=True, kw_only=True):
    """The form is sent to POST /login with the fields `name`, `password`, `csrf` and `next`."""

    csrf: str
    next: str = "/"
    trouble: Trouble | None = None
    detail: str = ""
    wait_s: int = 0
    name: str = ""
    single_sign_on: str | None = None
    """What its button says; it leads to GET /login/oidc?next=..."""


def render(form: LoginForm) -> str:
    """A page without scripts."""
    told = ""
    if form.trouble is not None:
        text = TEXTS[form.trouble].format(wait_s=form.wait_s, detail=form.detail)
        told = f'<p role="alert">{escape(text)}</p>'
    other = ""
    if form.single_sign_on is not None:
        other = f'<p><a href="/login/oidc?next={escape(form.next)}">{escape(form.single_sign_on)}</a></p>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in</title>
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 22rem; margin: 12vh auto 0; padding: 0 1rem }}
input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .5rem;
  margin: .25rem 0 1rem }}
</style>
</head>
<body>
<main>
<h1>Sign in</h1>
{told}
<form method="post" action="/login">
<label for="name">Name</label>
<input id="name" name="name" value="{escape(form.name)}" autocomplete="username" autocapitalize="none"
  maxlength="64" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="256" required>
<input type="hidden" name="csrf" value="{escape(form.csrf)}">
<input type="hidden" name="next" value="{escape(form.next)}">
<button>Sign in</button>
</form>
{other}
</main>
</body>
</html>
"""
