# SPDX-License-Identifier: Apache-2.0
"""Places and the waiting room: fair among users, bounded, nobody lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.resident.admission import RUN, SEND_AWAY, WAIT, Admission


def test_admission__a_user_gets_a_quarter_and_then_waits() -> None:
    admission = Admission(places=8, waiting_room=8)
    assert [admission.offer(1, n) for n in range(5)] == [RUN, RUN, WAIT, WAIT, SEND_AWAY]
    assert admission.offer(2, 10) == RUN


def test_admission__free_places_go_round_among_users() -> None:
    admission = Admission(places=4, waiting_room=16)
    for uid in (1, 2, 3, 4):
        assert admission.offer(uid, "first") == RUN
    for name in ("a1", "a2", "a3"):
        assert admission.offer(1, name) == WAIT
    assert admission.offer(2, "b1") == WAIT
    assert admission.leave(3) == []  # the place is free, but 1 and 2 have their share
    assert admission.leave(1) == ["a1"]
    assert admission.leave(2) == ["b1"]
    assert admission.leave(1) == ["a2"]


def test_admission__who_gives_up_leaves_the_queue() -> None:
    admission = Admission(places=4, waiting_room=16)
    admission.offer(1, "first")
    admission.offer(1, "second")
    admission.offer(1, "third")
    admission.give_up(1, "second")
    assert admission.leave(1) == ["third"]
    assert admission.waiting == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=200), st.integers(1, 12), st.integers(1, 20))
def test_admission__never_over_a_share_and_nobody_is_forgotten(
    steps: list[tuple[int, bool]], places: int, room: int
) -> None:
    admission = Admission(places, room)
    running: Counter[int] = Counter()
    waiting: set[tuple[int, int]] = set()
    for number, (uid, comes) in enumerate(steps):
        if comes:
            place = admission.offer(uid, (uid, number))
            running[uid] += place == RUN
            if place == WAIT:
                waiting.add((uid, number))
        elif running[uid]:
            running[uid] -= 1
            for login in admission.leave(uid):
                waiting.remove(login)
                running[login[0]] += 1
        assert sum(running.values()) == admission.running <= admission.places
        assert len(waiting) == admission.waiting <= room
        assert max(running.values(), default=0) <= admission.share
        # a place that somebody could have is never left empty
        assert all(running[uid] >= admission.share for uid, _ in waiting) or admission.running == admission.places
    while any(running.values()):
        uid = next(uid for uid in running if running[uid])
        running[uid] -= 1
        for login in admission.leave(uid):
            waiting.remove(login)
            running[login[0]] += 1
    assert not waiting
    assert admission.running == 0
