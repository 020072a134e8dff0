"""The inputs of a target as hypothesis draws them."""

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from samd_scripts.fuzzing.target import Target

Edit = tuple[int, int, bytes]  # where (in 10,000ths of the length), how many bytes go, what comes


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Any bytes; and what is valid, with a few places changed."""
    if target.choices:
        # few bytes make a simple case, and many of them one that is changed in its last choices
        return st.binary(max_size=40) | st.binary(min_size=100, max_size=200)
    words = [word if isinstance(word, bytes) else word.encode() for word in target.words] or [b""]
    piece = st.binary(max_size=6) | st.sampled_from(words)
    edit: st.SearchStrategy[Edit] = st.tuples(st.integers(0, 9_999), st.integers(0, 12), piece)
    kept = st.sampled_from(target.corpus() or [b""])
    changed = st.builds(_edited, kept, st.lists(edit, max_size=4))
    return changed | st.binary(max_size=400)


def hold(target: Target, *, examples: int = 300, smallest: bool = True) -> None:
    """Raises for an input that breaks the target, the ``smallest`` such.

    The kept ones are tried, then ``examples`` that are the same each time."""
    for data in target.corpus():
        target.run(data)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink) if smallest else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(inputs(target))
    def one(data: bytes) -> None:
        target.run(data)

    one()


def _edited(data: bytes, edits: list[Edit]) -> bytes:
    edited = bytearray(data)
    for place, gone, come in edits:
        at = place * (len(edited) + 1) // 10_000
        edited[at : at + gone] = come
    return bytes(edited)
