# SPDX-License-Identifier: Apache-2.0
"""What is remembered of login sources: for a while, bounded, and on the account of who brought it."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.system.rpc.memory import (
    NODES_NS,
    SHARE,
    SILENT_NS,
    STRANGER_NS,
    VERSION_NS,
    CallerMemory,
    Table,
)
from slurm_adopt.wire.slurm_nodes import NodeRecord

ALICE, BOB = 1001, 1002
PLACE = ("10.0.0.1", 6818)
NODE = NodeRecord("n1", "n1", "10.0.0.1", 6818)


class Clock:
    now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


def conf() -> Any:
    return cast("Any", object())


def test_caller_memory__a_version_lives_a_while() -> None:
    clock = Clock()
    memory = CallerMemory(clock)
    assert memory.version_of(PLACE) == 0
    memory.keep_answer(PLACE, 40 << 8, ALICE)
    assert memory.version_of(PLACE) == 40 << 8
    assert memory.version_of(("10.0.0.1", 6819)) == 0
    clock.now_ns += VERSION_NS
    assert memory.version_of(PLACE) == 0
    memory.keep_answer(PLACE, 40 << 8, ALICE)
    memory.forget_version(PLACE)
    assert memory.version_of(PLACE) == 0


def test_caller_memory__silence_ends_by_time_or_by_an_answer() -> None:
    clock = Clock()
    memory = CallerMemory(clock)
    memory.keep_silence(PLACE, ALICE)
    assert memory.silent_ns(PLACE, ALICE) == SILENT_NS
    clock.now_ns += SILENT_NS - 1
    assert memory.silent_ns(PLACE, ALICE) == 1
    clock.now_ns += 1
    assert memory.silent_ns(PLACE, ALICE) == 0
    memory.keep_silence(PLACE, ALICE)
    memory.keep_answer(PLACE, 40 << 8, BOB)
    assert memory.silent_ns(PLACE, ALICE) == 0


def test_caller_memory__one_users_silence_keeps_nobody_else_from_asking() -> None:
    memory = CallerMemory(Clock())
    carol = BOB + 1
    memory.keep_silence(PLACE, ALICE)
    assert memory.silent_ns(PLACE, BOB) == 0
    memory.keep_silence(PLACE, ALICE)
    assert memory.silent_ns(PLACE, BOB) == 0
    memory.keep_silence(PLACE, BOB)
    assert memory.silent_ns(PLACE, carol) == memory.silent_ns(PLACE, ALICE) == SILENT_NS


def test_caller_memory__nodes_hold_for_one_configuration() -> None:
    clock = Clock()
    memory = CallerMemory(clock)
    old, new = conf(), conf()
    assert memory.nodes_of("10.0.0.1", old, "hosts") is None
    memory.keep_nodes("10.0.0.1", [NODE], old, "hosts", ALICE)
    memory.keep_nodes("10.0.0.9", [], old, "hosts", ALICE)
    assert memory.nodes_of("10.0.0.1", old, "hosts") == [NODE]
    assert memory.nodes_of("10.0.0.9", old, "hosts") == []
    clock.now_ns += STRANGER_NS
    assert memory.nodes_of("10.0.0.9", old, "hosts") is None
    assert memory.nodes_of("10.0.0.1", old, "hosts") == [NODE]
    assert memory.nodes_of("10.0.0.1", new, "hosts") is None
    # found out under the old one, which is not the current one any more
    memory.keep_nodes("10.0.0.1", [NODE], old, "hosts", ALICE)
    assert memory.nodes_of("10.0.0.1", new, "hosts") is None
    memory.keep_nodes("10.0.0.1", [NODE], new, "hosts", ALICE)
    assert memory.nodes_of("10.0.0.1", new, "other hosts") is None
    memory.keep_nodes("10.0.0.1", [NODE], new, "other hosts", ALICE)
    clock.now_ns += NODES_NS
    assert memory.nodes_of("10.0.0.1", new, "other hosts") is None


def test_table__who_brings_many_drives_out_his_own() -> None:
    table = Table(Clock())
    table.put("bobs", 1, BOB, 10)
    for number in range(10 * SHARE):
        table.put(("alices", number), number, ALICE, 10)
    assert len(table) == SHARE + 1
    assert table.get("bobs") == 1
    assert table.get(("alices", 0)) is None
    assert table.get(("alices", 10 * SHARE - 1)) == 10 * SHARE - 1


def test_table__the_longest_unused_goes_first() -> None:
    table = Table(Clock(), cap=2)
    table.put("a", 1, 1, 10)
    table.put("b", 2, 2, 10)
    assert table.get("a") == 1
    table.put("c", 3, 3, 10)
    assert [table.get(key) for key in "abc"] == [1, None, 3]


ACTIONS = st.tuples(
    st.sampled_from(["put", "get", "remove", "wait"]), st.integers(0, 9), st.integers(1, 3), st.integers(1, 5)
)


@given(st.lists(ACTIONS, max_size=60))
def test_table__caps_and_accounts_hold_always(actions: list[tuple[str, int, int, int]]) -> None:
    clock = Clock()
    table = Table(clock, cap=6, share=3)
    for what, key, uid, life_ns in actions:
        if what == "put":
            table.put(key, key, uid, life_ns)
            assert table.get(key) == key
        elif what == "get":
            assert table.get(key) in (None, key)
        elif what == "remove":
            table.remove(key)
            assert table.get(key) is None
        else:
            clock.now_ns += life_ns
        owners = [entry.uid for entry in table._entries.values()]
        assert table._counts == {uid: owners.count(uid) for uid in set(owners)}
        assert len(table) <= 6
        assert all(count <= 3 for count in table._counts.values())
