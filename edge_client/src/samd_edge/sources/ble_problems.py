"""Why Bluetooth cannot be used, and what to do about it, in one line."""

from typing import Final

# What is in the text or the type of an error, in lower case; the first that fits counts.
_KNOWN: Final = (
    (
        ("accessdenied", "autherror", "not authorized", "permission denied", "denied_by"),
        "this user may not use it; run: usermod -aG bluetooth USER, and log in again",
    ),
    (
        ("serviceunknown", "namehasnoowner", "org.bluez was not provided", "noreply"),
        "its service does not run; install the package bluez and run: systemctl start bluetooth",
    ),
    (
        ("timeouterror",),
        "its service does not answer; run: systemctl restart bluetooth",
    ),
    (
        ("filenotfounderror", "connectionrefusederror", "no such file or directory"),
        "the system's message bus does not run; start it: systemctl start dbus",
    ),
    (
        ("no bluetooth adapters", "no_bluetooth", "adapter not found", "unknownobject"),
        "there is no adapter; plug one in, or enable it; see: bluetoothctl list",
    ),
    (
        ("powered", "notready", "not ready", "powered_off", "turned off"),
        "the adapter is switched off; run: rfkill unblock bluetooth, then bluetoothctl power on",
    ),
)


def explain(error: Exception) -> str:
    """One line for an error of the Bluetooth stack, whatever its type."""
    seen = f"{type(error).__name__} {text_of(error)} {error!r}".lower()
    for marks, remedy in _KNOWN:
        if any(mark in seen for mark in marks):
            return f"Bluetooth cannot be used: {remedy}"
    return f"Bluetooth cannot be used ({text_of(error)}); see: bluetoothctl show"


def text_of(error: Exception) -> str:
    """The error's text on one line, or its type where it has none."""
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
