"""A JSON document with one part changed."""

import json
from collections.abc import Iterator
from typing import Any, Final

from samd_scripts.fuzzing.choices import Choices

_HERE: Final = "\x00here"

Place = tuple[str | int, ...]


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Where each part of a JSON document stands, the whole first."""
    yield at
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, part in items:
        yield from places(part, (*at, key))


def changed(choices: Choices, tree: Any) -> str:
    """The document as text, with one part replaced by an odd value, left out, or given twice or more."""
    copy: Any = json.loads(json.dumps(tree))
    place = choices.pick(list(places(copy)))
    odd = choices.json()
    if not place:
        return odd
    parent: Any = copy
    for key in place[:-1]:
        parent = parent[key]
    last = place[-1]
    match choices.below(4):
        case 0:
            del parent[last]
        case 1 if isinstance(last, str):
            parent[choices.text(8)] = parent.pop(last)
        case 2 if isinstance(last, int):
            parent += [parent[last]] * choices.below(5)
        case _:
            parent[last] = _HERE
    return json.dumps(copy).replace(json.dumps(_HERE), odd)
