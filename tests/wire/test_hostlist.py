# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.hostlist import (
    MAX_BRACKETS,
    MAX_DIGITS,
    MAX_NAME_LENGTH,
    MAX_NAMES,
    HostList,
    HostListError,
    expand,
    fold,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("node", ["node"]),
        ("a,b,,c,", ["a", "b", "c"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[01-03,7]", ["n01", "n02", "n03", "n7"]),
        ("n[08-11]x", ["n08x", "n09x", "n10x", "n11x"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("pre[1-3,07-09]post", ["pre1post", "pre2post", "pre3post", "pre07post", "pre08post", "pre09post"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("r[1-2]n[01-02]-ib,login", ["r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib", "login"]),
        ("[1-2]", ["1", "2"]),
        ("[1-2][3-4]", ["13", "14", "23", "24"]),
        ("fd00::1,10.0.0.[1-2]", ["fd00::1", "10.0.0.1", "10.0.0.2"]),
    ],
)
def test_hostlist__expands(text: str, names: list[str]) -> None:
    hosts = HostList(text)
    assert list(hosts) == names
    assert len(hosts) == len(names)
    assert [hosts[index] for index in range(len(names))] == names
    assert [hosts.index(name) for name in names] == [names.index(name) for name in names]
    with pytest.raises(IndexError):
        hosts[len(names)]


@pytest.mark.parametrize(
    "text",
    [
        "n[",
        "n]",
        "n[1-2",
        "n[[1]]",
        "n[]",
        "n[1-]",
        "n[-1]",
        "n[a-b]",
        "n[3-1]",
        "n[1-2]]",
        "n[1 2]",
        "n[٣]",
        "n[1,]",
        "n[1-65537]",
        "n[1-256]m[1-257]",
        "n[0-99999999999999999]",
        "n[0000000000000000001]",
        "x" * 600,
        "[1][1][1][1][1][1]",
        "n[1-65536],m",
    ],
)
def test_hostlist__refuses(text: str) -> None:
    with pytest.raises(HostListError):
        expand(text)


def test_hostlist__the_largest_list_is_read_without_writing_it_out() -> None:
    hosts = HostList(f"n[00001-{MAX_NAMES:05}]")
    assert len(hosts) == MAX_NAMES
    assert hosts.index("n65536") == MAX_NAMES - 1
    assert hosts[MAX_NAMES - 1] == "n65536"


def test_hostlist__the_longest() -> None:
    number = "9" * MAX_DIGITS
    brackets = "[1]" * MAX_BRACKETS
    long = "x" * MAX_NAME_LENGTH
    prefix = "x" * (MAX_NAME_LENGTH - MAX_DIGITS)
    for text, name in (
        (f"n[{number}]", f"n{number}"),
        (brackets, "1" * MAX_BRACKETS),
        (long, long),
        (f"{prefix}[7]", f"{prefix}7"),
    ):
        assert list(HostList(text)) == [name]
        assert HostList(text).index(name) == 0
    for text in (f"n[{number}9]", brackets + "[1]", long + "x", f"{prefix}x[7]", f"{prefix}[7]x"):
        with pytest.raises(HostListError):
            HostList(text)
    with pytest.raises(HostListError):
        expand("n[1-3]", 2)
    assert list(expand("n[1-3]", 3)) == ["n1", "n2", "n3"]


def test_hostlist__every_place_of_a_name() -> None:
    hosts = HostList("a,n[1-3,2-4,02],a,n3,r[1-2]n[1-2]")
    assert list(hosts) == "a n1 n2 n3 n2 n3 n4 n02 a n3 r1n1 r1n2 r2n1 r2n2".split()
    for name in set(hosts):
        assert list(hosts.places(name)) == [place for place, other in enumerate(hosts) if other == name]
    for name in ("n", "n5", "n002", "b", "r1n3", "r3n1", "xn1", "n1x", "r1n", "rn1"):
        assert list(hosts.places(name)) == []
    overlapping = HostList("ab[1-2]ba")
    assert list(overlapping.places("aba")) == list(overlapping.places("abba")) == []
    assert list(overlapping.places("ab1ba")) == [0]
    framed = HostList("n[1-3]y")
    assert [framed.index(name) for name in ("n2x", "m2y", "n2", "2y")] == [None] * 4
    assert [HostList("a[1-3]").index(name) for name in ("b2", "22")] == [None] * 2


@pytest.mark.parametrize("name", ["n1", "n001", "n00", "n13", "n", "n05x", "m05", "n5", "n٠٥", "n0x5", "n" + "9" * 40])
def test_hostlist__index_finds_only_what_is_written_so(name: str) -> None:
    assert HostList("n[05-12],x[1-2]y[1-2]").index(name) is None


@given(st.text(alphabet="ab[]-,01239", max_size=24))
def test_hostlist__index_agrees_with_expansion(text: str) -> None:
    try:
        hosts = HostList(text, 5000)
    except HostListError:
        return
    names = list(hosts)
    for name in names[:50]:
        assert hosts.index(name) == names.index(name)


@given(st.text(max_size=200))
def test_hostlist__raises_nothing_else(text: str) -> None:
    with suppress(HostListError):
        assert all(isinstance(name, str) for name in HostList(text, 1000))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["login"], "login"),
        (["n2", "n1", "n1", "login"], "login,n[1-2]"),
        (["n8", "n9", "n10", "n12"], "n[8-10,12]"),
        (["n08", "n09", "n10", "n7"], "n[7,08-10]"),
        (["r1n1-ib", "r1n2-ib", "r2n1-ib"], "r1n[1-2]-ib,r2n1-ib"),
        (["1", "2"], "[1-2]"),
        (["a-long-name-of-a-node1", "a-long-name-of-a-node2"], "a-long-name-of-a-node[1-2]"),
        (["n" + "1" * 18, "n" + "1" * 17 + "2"], "n[" + "1" * 18 + "-" + "1" * 17 + "2]"),
        (["n" + "1" * 30, "n" + "1" * 29 + "2"], "n" + "1" * 30 + ",n" + "1" * 29 + "2"),
    ],
)
def test_hostlist__folds(names: list[str], text: str) -> None:
    assert fold(names) == text
    assert set(expand(text)) == set(names)


@given(st.lists(st.from_regex(r"[a-z]{0,2}[0-9]{1,3}[a-z]?", fullmatch=True), max_size=40))
def test_hostlist__folded_and_expanded_are_the_same_names(names: list[str]) -> None:
    assert sorted(expand(fold(names))) == sorted(set(names))
