"""What can go wrong with an image."""


class FlashError(Exception):
    """The input, the machine or an image cannot be used; the text is one line: what, where, what to do."""


class CheckFailed(Exception):  # noqa: N818 - it is the verdict of a check, and no fault of the program
    """A check of `flash test` that was not met; the text says what was seen and what was to be seen."""
