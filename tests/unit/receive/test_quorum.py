"""The arithmetic of quorums equals a plain model, for all answers of up to five replicas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from thanostack.receive.quorum import Answer, Quorum, Verdict, quorum_of

S, C, INV, L, T = Answer
DONE = (S, C, INV)


def final(answers, needed):
    """What a series with all its answers is."""
    if answers.count(S) >= needed:
        return "stored"
    return "refused" if sum(a in DONE for a in answers) >= needed else "retry"


def kinds_of(answers, replicas, needed):
    """What a series with some of its answers may still become."""
    rest = replicas - len(answers)
    # Only three kinds differ here: stored, done without storing, not done.
    return {
        final([*answers, *more], needed)
        for more in itertools.combinations_with_replacement((S, C, T), rest)
    }


def model(series, replicas, needed):
    """The verdict's kind once no other answer could change it, else None."""
    kinds = [kinds_of(answers, replicas, needed) for answers in series]
    if any(found == {"retry"} for found in kinds):
        return "retry"
    if any(len(found) > 1 for found in kinds):
        return None
    return "stored" if all(found == {"stored"} for found in kinds) else "refused"


KIND = {
    Verdict.STORED: "stored",
    Verdict.CONFLICT: "refused",
    Verdict.INVALID: "refused",
    Verdict.LIMITED: "retry",
    Verdict.UNAVAILABLE: "retry",
    None: None,
}


def one(series):
    return np.array([series], np.int32)


@pytest.mark.parametrize("replicas", range(1, 6))
def test_one_series_is_settled_at_the_first_answer_that_settles_it(replicas):
    """Every sequence of answers: the verdict comes neither earlier nor later than in the model."""
    needed = quorum_of(replicas)
    for answers in itertools.product(Answer, repeat=replicas):
        quorum = Quorum(1, replicas, needed)
        for n, answer in enumerate(answers, 1):
            quorum.add(one(0), 0, answer)
            assert model([answers[:n]], replicas, needed) == KIND[quorum.verdict()], answers[:n]
        assert quorum.is_complete
        assert quorum.stored.tolist() == [final(answers, needed) == "stored"]


@pytest.mark.parametrize("replicas", range(1, 6))
def test_two_series_are_settled_as_one_request(replicas):
    """Two series whose answers come in turn: one to retry decides, all stored decides."""
    needed = quorum_of(replicas)
    kinds = list(itertools.combinations_with_replacement((S, C, T), replicas))
    for first, second in itertools.product(kinds, repeat=2):
        quorum = Quorum(2, replicas, needed)
        for n in range(1, replicas + 1):
            quorum.add(one(0), 0, first[n - 1])
            assert (
                model([first[:n], second[: n - 1]], replicas, needed) == KIND[quorum.verdict()]
            ), (first[:n], second[: n - 1])
            quorum.add(one(0), 1, second[n - 1])
            assert model([first[:n], second[:n]], replicas, needed) == KIND[quorum.verdict()]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([S, S], Verdict.STORED),
        ([S, C, S], Verdict.STORED),
        ([C, C], Verdict.CONFLICT),
        ([C, INV], Verdict.CONFLICT),
        ([INV, INV], Verdict.INVALID),
        ([C, T, C], Verdict.CONFLICT),
        ([S, C, T], Verdict.CONFLICT),
        ([T, T], Verdict.UNAVAILABLE),
        ([L, T], Verdict.UNAVAILABLE),
        ([L, L], Verdict.LIMITED),
        ([C, T, T], Verdict.UNAVAILABLE),
    ],
)
def test_verdicts_of_three_replicas(answers, verdict):
    """The table of docs/decisions: a verdict at the last of these answers and not before."""
    quorum = Quorum(1, 3, 2)
    for answer in answers[:-1]:
        quorum.add(one(0), 0, answer)
        assert quorum.verdict() is None
    quorum.add(one(0), 0, answers[-1])
    assert verdict is quorum.verdict()


@pytest.mark.parametrize("replicas", [4, 5])
def test_even_numbers_have_a_verdict_too(replicas):
    """Upstream: a series of four replicas that failed on exactly two has no cause; it is 500."""
    quorum = Quorum(1, 4, quorum_of(4))
    for answer in (S, T, S):
        quorum.add(one(0), 0, answer)
    assert quorum.verdict() is None
    quorum.add(one(0), 0, C if replicas == 4 else T)
    assert quorum.verdict() is (Verdict.CONFLICT if replicas == 4 else Verdict.UNAVAILABLE)


def test_a_sender_that_repeats_comes_to_an_end():
    """As soon as a quorum of nodes is up, the verdict is one that is not sent again."""
    for replicas in range(1, 6):
        needed = quorum_of(replicas)
        for up in itertools.product((S, C, INV), repeat=needed):
            quorum = Quorum(1, replicas, needed)
            for answer in (*up, *(T,) * (replicas - needed)):
                quorum.add(one(0), 0, answer)
            assert quorum.verdict() in {Verdict.STORED, Verdict.CONFLICT, Verdict.INVALID}
