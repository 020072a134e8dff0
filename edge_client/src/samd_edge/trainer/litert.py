"""The trainer of every device: the bundle's own graph, a whole epoch in one call."""

from samd_edge.runtime import Graph, runtime_name
from samd_protocol.bundle import Bundle


def warm_up() -> str:
    """Load the interpreter; its name. Raises RuntimeUnavailable when there is none."""
    return runtime_name()


def load(bundle: Bundle) -> Graph:
    """The trainer of a bundle; raises GraphError for a graph that cannot train."""
    return Graph(bundle.graph)
