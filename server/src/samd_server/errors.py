"""The errors of the server.

ServerError
├── StoreError    the model store or a run's folder cannot be used: stop, correct, start again
├── RunFailed     a run cannot go on: it ends with this reason; the server waits for the next
└── RunStopped    somebody asked for the end
"""


class ServerError(Exception):
    """Base of what the server raises on purpose; its text is one plain sentence with the remedy."""


class StoreError(ServerError):
    """A folder or file of the server is missing, damaged or would be overwritten."""


class RunFailed(ServerError):  # noqa: N818 - a run fails; the name is the state it ends in
    """The run ends with this reason."""


class RunStopped(ServerError):  # noqa: N818 - as above
    """An operator stopped the run."""
