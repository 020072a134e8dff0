"""The look of the login page: plain HTML without a script, in the reader's language and theme.

What it shows and what its form must send is `access.login_page`'s; `api_login` answers it.
"""

from fastapi import Request

from samd_gateway.access.login_page import LoginForm
from samd_gateway.pages.shell import STATIC, escaped
from samd_gateway.pages.texts import Catalogue
from samd_gateway.pages.view import language_of, theme_of


class LoginLook:
    """Draws the form for a request."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._style = (STATIC / "login.css").read_text(encoding="utf-8")

    def __call__(self, form: LoginForm, request: Request) -> str:
        t = self._catalogue.of(language_of(request))
        told = ""
        if form.trouble is not None:
            text = t(f"login.trouble.{form.trouble}", wait_s=form.wait_s, detail=form.detail)
            kind = 'class="told" role="status"' if form.trouble == "signed-out" else 'role="alert"'
            told = f"<p {kind}>{escaped(text)}</p>"
        other = ""
        if form.single_sign_on is not None:
            link = f"/login/oidc?next={escaped(form.next)}"
            other = f'<p class="other"><a href="{link}">{escaped(form.single_sign_on)}</a></p>'
        focus = {"name": "" if form.name else " autofocus", "password": " autofocus" if form.name else ""}
        return (
            f'<!doctype html><html lang="{t.language}" data-theme="{theme_of(request)}">'
            '<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escaped(t('login.title'))} · samd</title><style>{self._style}</style>"
            f'</head><body><main><p class="brand">samd</p><h1>{escaped(t("login.title"))}</h1>{told}'
            '<form method="post" action="/login">'
            f'<label for="name">{escaped(t("login.name"))}</label>'
            f'<input id="name" name="name" value="{escaped(form.name)}" autocomplete="username" '
            f'autocapitalize="none" spellcheck="false" maxlength="64" required{focus["name"]}>'
            f'<label for="password">{escaped(t("login.password"))}</label>'
            '<input id="password" name="password" type="password" autocomplete="current-password" '
            f'maxlength="256" required{focus["password"]}>'
            f'<input type="hidden" name="csrf" value="{escaped(form.csrf)}">'
            f'<input type="hidden" name="next" value="{escaped(form.next)}">'
            f"<button>{escaped(t('login.submit'))}</button></form>{other}"
            f'<p class="note">{escaped(t("shell.research"))}</p></main></body></html>'
        )
