"""Who takes part, and until when to wait: exact, with the time as an argument."""

from samd_gateway.admission import Answer, Fail, HandOver, Wait, decide

SILENT = [Answer(device=f"d{index}") for index in range(4)]


def yes(device: str, at: float = 1.0) -> Answer:
    return Answer(device=device, verdict="accepted", answered_at=at)


def no(device: str, reason: str = "too hot") -> Answer:
    return Answer(device=device, verdict="rejected", reason=reason, answered_at=1.0)


def judge(answers: list[Answer], quorum: int, now: float) -> Wait | HandOver | Fail:
    return decide(answers, quorum=quorum, started_at=0.0, deadline_s=15.0, now=now, grace_s=0.5)


def test_all_that_answer_take_part_sorted() -> None:
    assert judge([yes("b"), yes("a"), yes("c")], 2, 1.0) == HandOver(["a", "b", "c"])


def test_silent_ones_get_a_grace_after_the_quorum() -> None:
    answers = [yes("b", 1.0), yes("a", 2.0), SILENT[0]]
    assert judge(answers, 2, 2.0) == Wait(2.5)
    assert judge(answers, 2, 2.5) == HandOver(["a", "b"])


def test_the_grace_counts_from_the_answer_that_reached_the_quorum() -> None:
    assert judge([yes("a", 1.0), yes("b", 9.0), SILENT[0]], 1, 9.0) == HandOver(["a", "b"])


def test_the_grace_ends_with_the_deadline() -> None:
    assert judge([yes("a", 14.9), SILENT[0]], 1, 14.9) == Wait(15.0)


def test_below_quorum_it_waits_until_the_deadline() -> None:
    answers = [yes("a"), *SILENT]
    assert judge(answers, 2, 14.999) == Wait(15.0)
    assert judge(answers, 2, 15.0) == Fail(
        "1 of 5 asked devices accepted, 2 are needed; no answer within 15 s: 4"
    )


def test_it_fails_as_soon_as_the_quorum_is_out_of_reach() -> None:
    answers = [yes("a"), no("b"), no("c"), no("d", "no data")]
    assert judge(answers, 2, 1.0) == Fail(
        "1 of 4 asked devices accepted, 2 are needed; rejected: no data (1), too hot (2)"
    )


def test_rejections_do_not_keep_the_others_from_beginning() -> None:
    assert judge([yes("a"), yes("b"), no("c")], 2, 1.0) == HandOver(["a", "b"])
