"""What people do at the bedside, by dialogs: each shows in whose name, and what the device answered."""

from samd_gateway.pages.view import View


class Bedside:
    """The dialogs of one page."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def begin(self, kind: str, device: str) -> None:
        """Open what was asked for."""
        self._view.say(f"{kind} {device}")
