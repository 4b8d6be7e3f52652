# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.slurm_conf import INCLUDE, ConfError, last_values, logical_line, parse, read_pair, read_pairs
from slurm_adopt.wire.slurm_nodes import (
    MAX_NODES,
    NodeRecord,
    iter_nodes,
    node_of_name,
    nodes_of_address,
    nodes_of_host,
)

#: node_of_name, nodes_of_host, nodes_of_address
Finder = Callable[..., "list[NodeRecord] | NodeRecord | None"]


def listed(found: list[NodeRecord] | NodeRecord | None) -> list[NodeRecord]:
    return found if isinstance(found, list) else [found] if found else []


def values(text: str) -> dict[str, str]:
    return last_values(parse(text).statements)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("SlurmUser=slurm", {"slurmuser": "slurm"}),
        ("slurmuser = slurm \t\r\n", {"slurmuser": "slurm"}),
        ("  SlurmUser=slurm", {"slurmuser": "slurm"}),
        ("SlurmUser=a\nSLURMUSER=b\n", {"slurmuser": "b"}),
        ("SlurmUser=slurm # comment", {"slurmuser": "slurm"}),
        ("SlurmUser=slurm#comment", {"slurmuser": "slurm"}),
        ("SlurmUser=slurm\\#1", {"slurmuser": "slurm#1"}),
        ("SlurmUser=slurm\\\\#1", {"slurmuser": "slurm\\"}),
        ("SlurmUser=slurm\\\\\\#1", {"slurmuser": "slurm\\#1"}),
        ('SlurmUser="a # b"', ConfError),
        ('SlurmUser="a \\# b"', {"slurmuser": "a # b"}),
        ('AuthInfo=""', {"authinfo": ""}),
        ('AuthInfo="a b"', {"authinfo": "a b"}),
        ('AuthInfo="a"b', ConfError),
        ('AuthInfo=a"b"', {"authinfo": 'a"b"'}),
        ("AuthInfo=a b", ConfError),
        ("AuthInfo", ConfError),
        ("AuthInfo=", ConfError),
        ("AuthInfo - = x", ConfError),
        ("AuthInfo +=x", {"authinfo": "x"}),
        ("Slurm\\\nUser=sl\\ \t\nurm\n", {"slurmuser": "slurm"}),
        ("# a comment does not continue \\\nSlurmUser=a", {"slurmuser": "a"}),
        ("SlurmUser=a # nor here \\\nSlurmdUser=b", {"slurmuser": "a", "slurmduser": "b"}),
        ("SlurmUser=a\\\\\nSlurmdUser=b", {"slurmuser": "a\\", "slurmduser": "b"}),
        ("SlurmUser=a\\", {"slurmuser": "a"}),
        ("SlurmUser=a\\\n", {"slurmuser": "a"}),
        ("SlurmUser=a\\b", {"slurmuser": "ab"}),
        ("Odd line\nSlurmUser=a", {"slurmuser": "a"}),
        ("=x\nSlurmUser=a", {"slurmuser": "a"}),
        ("Comment=a b\nSlurmUser=a", {"comment": "a", "slurmuser": "a"}),
        ('Comment="open\nSlurmUser=a', {"slurmuser": "a"}),
        ("Include=x", {"include": "x"}),
        ("TaskPluginParam.x_y=1", {"taskpluginparam.x_y": "1"}),
        ("K=\u2003x", {"k": "\u2003x"}),
        ("SlurmUser=a # b # c", {"slurmuser": "a"}),
        ("SlurmUser=a\\##b", {"slurmuser": "a#"}),
        ("SlurmUser=a\\#b#c#d", {"slurmuser": "a#b"}),
        ("Comment=a\\\x1c\nSlurmUser=b", {"comment": "a\x1c", "slurmuser": "b"}),
        ("SlurmUser=a\\#\\#b#c", {"slurmuser": "a##b"}),
        ("SlurmUser=a\\#b\\\nc", {"slurmuser": "a#bc"}),
        ("SlurmUser=a\\b\\\\c\\", {"slurmuser": "ab\\c"}),
        ("SlurmUser\\\n=\\\na\\", {"slurmuser": "a"}),
        ("SlurmUser=a \\\x1c\nSlurmdUser=b", ConfError),
        (
            "AuthInfo+=a\nSlurmUser-=b\nSlurmdUser*=c\nCryptoType/=d",
            {"authinfo": "a", "slurmuser": "b", "slurmduser": "c", "cryptotype": "d"},
        ),
        ("Comment=%=x", {"comment": "%=x"}),
        ("Comment%=x", {}),
        ('Comment="a" "b"', {"comment": "a"}),
        ("SlurmUser  ", ConfError),
        ("SlurmUser=  ", ConfError),
        ("  ", {}),
        ("Include x\nNodeName=n SlurmUser=a", {}),
    ],
)
def test_slurm_conf__values(text: str, expected: dict[str, str] | type[Exception]) -> None:
    if isinstance(expected, dict):
        assert values(text) == expected
    else:
        with pytest.raises(expected):
            parse(text)


@pytest.mark.parametrize("blank", ["\x1c", "\x85", "\xa0", "\u2003"])
def test_slurm_conf__only_its_own_blanks_are_blanks(blank: str) -> None:
    assert parse(blank).problems == ("slurm.conf:1: no key",)
    assert parse(f"{blank}NodeName=n").statements == ()
    assert parse(f"{blank}NodeName=n").problems == ("slurm.conf:1: no key",)
    assert parse(f"Comment=a {blank}").problems == ("slurm.conf:1: more text after the value of 'comment'",)
    assert read_pairs(f"a=1 {blank}") == ({"a": "1"}, "no key")
    assert parse(f"Include {blank}x\n").statements == ((INCLUDE, f"{blank}x", "slurm.conf", 1),)


def test_slurm_conf__a_records_line_is_kept_as_it_stands() -> None:
    for line in (
        "NodeName=n1",
        "nodename=n1",
        "nOdEnAmE=n1",
        "nOdEnAmE=n1 \\#x ",
        "nodeName = n1\t",
        "slurmctldhost=a(b)",
    ):
        for blanks in ("", " \t"):
            conf = parse(blanks + line)
            assert conf.problems == ()
            ((key, value, _, number),) = conf.statements
            assert (key, value, number) == (line[: len(key)].lower(), line, 1)


def test_slurm_conf__lines_that_go_on_have_the_number_of_the_first() -> None:
    conf = parse("A=1\\\n2\\\n3\nB=\\\n4\n\nC=5\\")
    assert conf.statements == (("a", "123", "slurm.conf", 1), ("b", "4", "slurm.conf", 4), ("c", "5", "slurm.conf", 7))


def test_slurm_conf__logical_line() -> None:
    assert logical_line("a\\") == "a"
    assert logical_line("a\\\\") == "a\\"
    assert logical_line("\\a\\\\\\b#c") == "a\\b"


def test_slurm_conf__an_odd_line_is_a_problem_with_its_place() -> None:
    assert read_pair("  ", 0) == "no key"
    conf = parse(b'\nOdd line\nComment=a b\nComment="x\n\xff\xfe\n', "/etc/slurm/slurm.conf")
    assert conf.name == "/etc/slurm/slurm.conf"
    assert conf.problems == (
        "/etc/slurm/slurm.conf:2: no = after 'odd'",
        "/etc/slurm/slurm.conf:3: more text after the value of 'comment'",
        "/etc/slurm/slurm.conf:4: quote of 'comment' is not closed",
        "/etc/slurm/slurm.conf:5: no key",
    )


def test_slurm_conf__an_error_names_file_and_line() -> None:
    with pytest.raises(ConfError, match=r"^x\.conf:3: ") as caught:
        parse("A=\\\nb\nSlurmUser\n", "x.conf")
    assert (caught.value.file, caught.value.line) == ("x.conf", 3)
    with pytest.raises(ConfError, match=r"^x\.conf:2: .*NUL"):
        parse(b"A=b\nC=\0", "x.conf")


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("Include /a/b", "/a/b"),
        ("include\tnodes-%c.conf  ", "nodes-%c.conf"),
        ("INCLUDE x y", "x"),
        ("Include x# comment", "x"),
        ("Inc\\\nlude x", "x"),
        ("Include a\\ b", "a"),
        (" Include x", None),
        ("Includes x", None),
        ("Include", None),
    ],
)
def test_slurm_conf__include(line: str, file: str | None) -> None:
    statements = parse(f"A=b\n{line}\nC=d\n").statements
    found = [value for key, value, _, number in statements if key == INCLUDE and number == 2]
    assert found == ([] if file is None else [file])
    assert [key for key, _, _, _ in statements if key != INCLUDE] == ["a", "c"]


@pytest.mark.parametrize("line", ["Include  ", "Include *.conf", "Include # x"])
def test_slurm_conf__include_refused(line: str) -> None:
    with pytest.raises(ConfError):
        parse(line)


def test_slurm_conf__pairs_of_a_record() -> None:
    assert read_pairs('NodeName=a  CPUS = 4 Reason="not yet" x+=1') == (
        {"nodename": "a", "cpus": "4", "reason": "not yet", "x": "1"},
        "",
    )
    pairs, wrong = read_pairs("NodeName=a b")
    assert pairs == {"nodename": "a"}
    assert wrong == "no = after 'b'"


NODES = """
NodeName=DEFAULT Port=7000 CPUs=2
NodeName=a[1-3] NodeHostname=h[1-3] NodeAddr=10.0.0.[1-3] Port=7001-7003
nodename = b[1-2] NodeAddr=gate
  NodeName=c NodeHostname=host#c
NodeName=v[1-2] NodeHostname=h1 Port=[7001,7002]
NodeName=DEFAULT Port=7777
PartitionName=p Nodes=ALL
NodeName=d[1-3] NodeAddr=10.0.1.[1-2]
NodeName=e[1-2
NodeName=a1 NodeAddr=10.9.9.9
NodeName=f Port=99999
NodeName=../x
NodeName=g Feature=x odd
NODENAME="q" \\
  NodeAddr=fd00::1
"""


def test_slurm_nodes__all() -> None:
    problems: list[str] = []
    nodes = list(iter_nodes(parse(NODES, "f").statements, 6818, problems))
    assert nodes == [
        NodeRecord("a1", "h1", "10.0.0.1", 7001),
        NodeRecord("a2", "h2", "10.0.0.2", 7002),
        NodeRecord("a3", "h3", "10.0.0.3", 7003),
        NodeRecord("b1", "b1", "gate", 7000),
        NodeRecord("b2", "b2", "gate", 7000),
        NodeRecord("c", "host", "host", 7000),
        NodeRecord("v1", "h1", "h1", 7001),
        NodeRecord("v2", "h1", "h1", 7002),
        NodeRecord("g", "g", "g", 7777),
        NodeRecord("q", "q", "fd00::1", 7777),
    ]
    assert problems == [
        "f:9: 2 values of NodeAddr for 3 nodes",
        "f:10: bracket is not closed in 'e[1-2'",
        "node a1 is defined twice",
        "port '99999' of node f",
        "no name for a node: '../x'",
        "f:14: no = after 'odd'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("NodeName=n[1-2] NodeHostname=a,b,c", "f:1: 3 values of NodeHostname for 2 nodes"),
        ("NodeName=n[1-2] Port=1,2,3", "f:1: 3 values of Port for 2 nodes"),
        ("NodeName=a\u0007", "no name for a node: 'a\\x07'"),
        ("NodeName=.hidden", "no name for a node: '.hidden'"),
        ("NodeName=a/b", "no name for a node: 'a/b'"),
        ("NodeName==x", "f:1: no node name"),
        ("NodeName=", "f:1: no value for 'nodename'"),
        ("NodeName=n Port=65536", "port '65536' of node n"),
    ],
)
def test_slurm_nodes__problems(text: str, problem: str) -> None:
    """Each is said, and loses its own nodes and nobody else's."""
    problems: list[str] = []
    statements = parse(f"{text}\nNodeName=good Port=1\n", "f").statements
    assert [node.name for node in iter_nodes(statements, problems=problems)] == ["good"]
    assert problems == [problem]
    for find in (node_of_name, nodes_of_host, nodes_of_address):
        assert find(statements, "good")
        found: list[str] = []
        for wanted in ("n", "n1", "a", "a\u0007", ".hidden", "a/b"):
            assert not find(statements, wanted, problems=found)
        assert set(found) <= {problem}


def test_slurm_nodes__too_many() -> None:
    problems: list[str] = []
    statements = parse(f"NodeName=n[1-{MAX_NODES}]\nNodeName=m\n", "f").statements
    assert sum(1 for _ in iter_nodes(statements, problems=problems)) == MAX_NODES
    assert problems == [f"more than {MAX_NODES} nodes"]


@pytest.mark.parametrize(
    ("host", "names"),
    [("h1", ["a1", "v1", "v2"]), ("h2", ["a2"]), ("a1", ["a1"]), ("b2", ["b2"]), ("q", ["q"]), ("c", []), ("x", [])],
)
def test_slurm_nodes__of_host(host: str, names: list[str]) -> None:
    assert [node.name for node in nodes_of_host(parse(NODES).statements, host)] == names


def test_slurm_nodes__of_address_and_name() -> None:
    statements = parse(NODES).statements
    assert [node.name for node in nodes_of_address(statements, "10.0.0.2")] == ["a2"]
    assert [node.name for node in nodes_of_address(statements, "gate")] == ["b1", "b2"]
    assert [node.name for node in nodes_of_address(statements, "fd00::1")] == ["q"]
    assert nodes_of_address(statements, "10.0.0.9") == []
    assert node_of_name(statements, "v2") == NodeRecord("v2", "h1", "h1", 7002)
    assert node_of_name(statements, "h1") is None
    assert node_of_name(parse("NodeName=f Port=0").statements, "f") is None


@pytest.mark.parametrize("blanks", ["", " ", "\t", "\f "])
def test_slurm_nodes__blanks_behind_the_equals_sign(blanks: str) -> None:
    """Found by fuzzing: the quick look passed over such a line."""
    text = "NodeName={0}DEFAULT Port={0}7000\nNodeName={0}n[1-4] NodeHostname={0}h[1-4] NodeAddr={0}10.0.0.[1-4]\n"
    statements = parse(text.format(blanks)).statements
    node = NodeRecord("n2", "h2", "10.0.0.2", 7000)
    assert node_of_name(statements, "n2") == node
    assert nodes_of_host(statements, "h2") == [node]
    assert nodes_of_address(statements, "10.0.0.2") == [node]


def test_slurm_nodes__one_value_for_several_nodes_of_a_line() -> None:
    """Found by fuzzing: only the first node was found."""
    statements = parse("NodeName=n[1-5] NodeHostname=h1,h[1-1,2],h2,h3 Port=[7001-7005]\n").statements
    assert [node.name for node in nodes_of_host(statements, "h1")] == ["n1", "n2"]
    assert [node.name for node in nodes_of_host(statements, "h2")] == ["n3", "n4"]
    assert [node.name for node in nodes_of_address(statements, "h2")] == ["n3", "n4"]
    assert [node.port for node in nodes_of_address(statements, "h3")] == [7005]


def test_slurm_nodes__defaults_behind_another_name() -> None:
    """The last value of a key counts, for the quick look as well. Found by fuzzing."""
    statements = parse("NodeName=a NodeName=Default Port=7000\nNodeName=n[1-2]\n").statements
    assert [node_of_name(statements, node.name) for node in iter_nodes(statements)] == [
        NodeRecord("n1", "n1", "n1", 7000),
        NodeRecord("n2", "n2", "n2", 7000),
    ]


def test_slurm_nodes__defaults_without_a_port_leave_it() -> None:
    text = "NodeName=DEFAULT Port=7000\nNodeName=DEFAULT CPUs=2\nNodeName=a\nNodeName=b Port=000000000000006818\n"
    assert [node.port for node in iter_nodes(parse(text).statements)] == [7000, 6818]


def test_slurm_nodes__a_node_that_is_there_twice_takes_nobody_along() -> None:
    statements = parse("NodeName=a Port=7001\nNodeName=a,b Port=7002\n").statements
    assert [(node.name, node.port) for node in iter_nodes(statements)] == [("a", 7001), ("b", 7002)]


FINDERS = (node_of_name, nodes_of_host, nodes_of_address)


@pytest.mark.parametrize("find", FINDERS)
def test_slurm_nodes__each_search_has_the_default_port_and_says_what_is_odd(find: Finder) -> None:
    statements = parse("NodeName=n1 Port=0\nNodeName=n1\n", "f").statements
    problems: list[str] = []
    find(statements, "n1", 7000, problems)
    assert problems == ["port '0' of node n1"]
    assert [node.port for node in listed(find(parse("NodeName=n1").statements, "n1", 7000))] == [7000]
    assert [node.port for node in listed(find(parse("NodeName=n1").statements, "n1"))] == [6818]


@pytest.mark.parametrize(
    ("line", "wanted", "is_read"),
    [
        ("NodeName=n1", "n2", False),
        ("NodeName=n1,n3", "n2", False),
        ("NodeName=cn[1-9] NodeHostname=host[1-9] NodeAddr=10.0.0.[1-9]", "login", False),
        ("NodeName=cn[1-9] NodeHostname=host[1-9] NodeAddr=10.0.0.[1-9]", "cn5", True),
        ("NodeName=cn[1-9] NodeHostname=host[1-9] NodeAddr=10.0.0.[1-9]", "host5", True),
        ("NodeName=cn[1-9] NodeHostname=host[1-9] NodeAddr=10.0.0.[1-9]", "10.0.0.5", True),
        ("NodeName=n[1-9]", "n1", True),
        ("NodeName=[1-9]n", "5n", True),
        ("NodeName=a,[1-9]n", "5n", True),
        ("NodeName=a NodeAddr= [1-9]n", "5n", True),
        ("NodeName=a NodeAddr=\t[1-9]n", "5n", True),
        ("NodeName = n1", "n2", True),
        ("NodeName=default Port=7", "n2", True),
        ("NodeName=n1 CPUs=DEFAULT", "n2", True),
        ('NodeName="n1"', "n2", True),
        ("NodeName=\\n1", "n2", True),
    ],
)
def test_slurm_nodes__the_quick_look(line: str, wanted: str, is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there for lines of thousands of nodes, and has to be one."""
    seen: list[str] = []

    def counting(text: str) -> tuple[dict[str, str], str]:
        seen.append(text)
        return read_pairs(text)

    monkeypatch.setattr("slurm_adopt.wire.slurm_nodes.read_pairs", counting)
    for find in FINDERS:
        find(parse(line).statements, wanted)
    assert len(seen) == (len(FINDERS) if is_read else 0)


NAMES = st.text(alphabet="nab=[]-,0123", min_size=1, max_size=12)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["", " NodeHostname=", " NodeAddr="]), NAMES), max_size=4),
    NAMES,
    st.sampled_from(["", " ", "\t\f "]),
)
def test_slurm_nodes__the_quick_look_misses_nothing(
    lines: list[tuple[str, str, str]], wanted: str, blanks: str
) -> None:
    text = "\n".join(f"NodeName={blanks}{name}{key}{blanks + value if key else ''}" for name, key, value in lines)
    statements = parse(text).statements
    try:
        everything = list(iter_nodes(statements))
    except MemoryError:
        return
    if len(everything) > 2000:
        return
    of_host = {node.name for node in nodes_of_host(statements, wanted)}
    of_address = {node.name for node in nodes_of_address(statements, wanted)}
    assert {node.name for node in everything if node.hostname == wanted} <= of_host
    assert {node.name for node in everything if node.address == wanted} <= of_address


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_slurm_conf__raises_nothing_else(text: bytes | str) -> None:
    try:
        conf = parse(text)
    except RemoteProtocolError:
        return
    assert sum(1 for _ in iter_nodes(conf.statements)) <= 65536


@given(st.text(alphabet='aN=o"\\#\n \t[]-,1+Includ', max_size=60))
def test_slurm_conf__raises_nothing_else_near_the_grammar(text: str) -> None:
    for start in ("", "NodeName=", "SlurmUser=", "Include "):
        try:
            conf = parse(start + text)
        except RemoteProtocolError:
            continue
        assert sum(1 for _ in iter_nodes(conf.statements)) <= 65536


def test_slurm_conf__three_thousand_long_lines() -> None:
    line = "NodeName=n{0} NodeAddr=10.1.{1}.{2} CPUs=128 RealMemory=512000 Gres=gpu:a100:4 State=UNKNOWN\n"
    text = "ClusterName=c\n" + "".join(line.format(i, i >> 8, i & 255) for i in range(3000))
    statements = parse(text.encode()).statements
    assert len(statements) == 3001
    assert nodes_of_host(statements, "n2999") == [NodeRecord("n2999", "n2999", "10.1.11.183", 6818)]


@pytest.mark.parametrize("port", ["a[1-3]", "7001x[1-2]", "6818\udcb1", "0", "65536", "[1-2]x"])
def test_nodes__a_port_that_is_none_is_a_problem_of_its_line(port: str) -> None:
    """And never an error of every login: found by fuzzing."""
    statements = parse(f"NodeName=n[1-3] Port={port}\nNodeName=good Port=7000\n").statements
    problems: list[str] = []
    assert [node.name for node in iter_nodes(statements, problems=problems)] == ["good"]
    assert len(problems) == 1
    assert node_of_name(statements, "n2") is None
