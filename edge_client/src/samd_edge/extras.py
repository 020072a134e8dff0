"""What to do where a library of an extra is missing."""


def install(extra: str) -> str:
    """The remedy: the project is installed from its folder, not from an index."""
    return f"install the extra {extra}: pip install './edge_client[{extra}]' in the project's folder"
