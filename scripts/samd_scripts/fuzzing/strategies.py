"""The inputs of a target as hypothesis draws them."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samd_scripts.fuzzing.target import Target

Edit = tuple[int, int, bytes]  # where (in 10,000ths of the length), how many bytes go, what comes


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Any bytes; and what is valid, with a few places changed."""
    if target.choices:
        return st.binary(max_size=200)
    words = [word if isinstance(word, bytes) else word.encode() for word in target.words] or [b""]
    piece = st.binary(max_size=6) | st.sampled_from(words)
    edit: st.SearchStrategy[Edit] = st.tuples(st.integers(0, 9_999), st.integers(0, 12), piece)
    kept = st.sampled_from(target.corpus() or [b""])
    changed = st.builds(_edited, kept, st.lists(edit, max_size=4))
    return changed | st.binary(max_size=400)


def hold(target: Target, *, examples: int = 300) -> None:
    """Raises for the smallest input that breaks the target: the kept ones, then the same ones each time."""
    for data in target.corpus():
        target.run(data)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
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
