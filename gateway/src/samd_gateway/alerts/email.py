"""Mail by SMTP, in plain text. Its `Message-ID` is that of the notice: readers know a second copy by it."""

import smtplib
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

from samd_gateway.alerts.channel import Channel, Email, secret_path
from samd_gateway.alerts.delivery import DeliveryError, Notice
from samd_gateway.alerts.tls import context_for
from samd_protocol.broker import read_secret
from samd_protocol.errors import BrokerError

CLASSES = {0: "0", 1: "1 (NEWS2 1-4)", 2: "2 (NEWS2 5-6, urgent)", 3: "3 (NEWS2 7 or more, emergency)"}
WORDS = {
    "alert.raised": "raised",
    "alert.escalated": "has become worse",
    "alert.step": "waits for somebody",
    "alert.resumed": "is back after its pause",
    "alert.acknowledged": "was acknowledged",
    "alert.paused": "was paused",
    "alert.cleared": "is over",
    "alert.test": "test of this channel",
}


class EmailSender:
    """Hands mails to a server. `folder` is the gateway's own."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now

    def send(self, channel: Channel, notice: Notice) -> str | None:
        config = channel.config
        if not isinstance(config, Email):
            raise DeliveryError(f"channel {channel.name} is no mail")
        mail = compose(config, notice, self._now())
        where = f"{config.host}:{config.port}"
        try:
            with self._connect(config) as server:
                if config.username is not None and config.password is not None:
                    server.login(config.username, self._password(config.password))
                refused = server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            # its words may quote an address or a name
            raise DeliveryError(f"{where} answered {error.smtp_code}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryError(f"{where} did not take the mail ({type(error).__name__})") from error
        if refused:  # to send it again would reach the others twice
            return f"{where} refused {len(refused)} of {len(config.to)} addresses"
        return None

    def _connect(self, config: Email) -> smtplib.SMTP:
        if config.security == "tls":
            return smtplib.SMTP_SSL(
                config.host, config.port, timeout=config.timeout_s, context=self._context(config)
            )
        server = smtplib.SMTP(config.host, config.port, timeout=config.timeout_s)
        if config.security == "starttls":
            try:
                server.starttls(context=self._context(config))
            except BaseException:
                server.close()
                raise
        return server

    def _context(self, config: Email) -> ssl.SSLContext:
        return context_for(self._folder, config.ca)

    def _password(self, file: str) -> str:
        try:
            return read_secret(str(secret_path(self._folder, file)))
        except BrokerError as error:
            raise DeliveryError(str(error)) from error


def compose(config: Email, notice: Notice, now: float) -> EmailMessage:
    """The mail of a notice."""
    content = notice.content
    data = content["data"]
    what = WORDS.get(content["type"], content["type"])
    kind = "silence" if data.get("kind") == "silence" else "alert"
    mail = EmailMessage()
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.to)
    mail["Subject"] = f"{data.get('device', 'gateway')}: {kind}, severity {data.get('severity', '?')}: {what}"
    mail["Date"] = formatdate(now)
    mail["Message-ID"] = f"<{notice.key}@samd-gateway>"
    lines = [
        f"device      {data.get('device')}",
        f"what        {kind} {what}",
        f"severity    {CLASSES.get(data.get('severity'), data.get('severity'))}",
        f"since       {data.get('raised_at')}",
        f"step        {data.get('step')} of the escalation ladder",
        f"known       {'yes' if data.get('acknowledged') else 'nobody has acknowledged it'}",
    ]
    if "news2_low" in data and data["news2_low"] is not None:
        lines.append(f"NEWS2       {data['news2_low']} to {data['news2_high']}")
    lines += [f"{name:<11} {data[name]}" for name in ("pseudonym", "bed", "ward", "reason") if data.get(name)]
    lines += ["", f"alert {data.get('alert')}, told at {content['timestamp']} (UTC)"]
    lines += ["Research software, no certified medical device."]
    mail.set_content("\n".join(lines) + "\n")
    return mail
