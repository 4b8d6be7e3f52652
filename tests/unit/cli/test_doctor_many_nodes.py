# SPDX-License-Identifier: Apache-2.0
"""The doctor on many nodes: what they send is checked, folded and shown, whoever has sent it. Invented answers."""

from __future__ import annotations

import base64
import json
import pickle
import re
import stat
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.cli import main as command_line
from slurm_adopt.cli.doctor.nodes import ask as asking
from slurm_adopt.cli.doctor.nodes import clustershell
from slurm_adopt.cli.doctor.nodes.answers import ANSWER_CAP, FIELDS, FINDING_CAP, TEXT_CAP, Answer, make_report
from slurm_adopt.cli.doctor.nodes.page import page
from slurm_adopt.cli.doctor.nodes.report import as_object, lines_of, summary

HOSTILE = [
    "<script>document.title='owned'</script>",
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\rb\x00c\u202ed\u2028e",
    "&lt;b&gt; <!-- ]]> ${7*7} {{7*7}}",
]


def finding(code: str = "pam-twice", **other: str) -> dict[str, str]:
    return {"code": code, "severity": "warning", "seen": "it", "why": "so", "mend": "thus", **other}


def answer(node: str, *findings: Any, status: int = 0) -> Answer:
    return Answer(node, json.dumps({"findings": findings}).encode(), status)


def text(answers: list[Answer], **how: Any) -> str:
    return "\n".join(lines_of(make_report(answers, **how), 80, False))


def codes(*answers: Answer) -> list[str]:
    return [shared.finding.code for shared in make_report(list(answers)).findings]


def test_doctor_many_nodes__healthy_ones_are_one_line() -> None:
    said = text([answer(f"n{number}") for number in range(1, 101)])
    assert said == "100 nodes: 100 healthy\n\nn[1-100] (100 nodes)\n  healthy"


def test_doctor_many_nodes__each_finding_once_with_the_nodes_that_have_it() -> None:
    answers = [answer(f"n{number}") for number in range(1, 6)]
    answers += [answer(f"n{number}", finding(), status=1) for number in (6, 7)]
    answers += [answer("n8", finding(), finding("slurmd-down", severity="error"), status=2)]
    report = make_report(answers)
    assert summary(report) == "8 nodes: 5 healthy, 2 with warnings, 1 with errors"
    assert [(one.finding.code, one.nodes) for one in report.findings] == [
        ("slurmd-down", ("n8",)),
        ("pam-twice", ("n6", "n7", "n8")),
    ]
    assert [group.nodes for group in report.groups] == [("n1", "n2", "n3", "n4", "n5"), ("n6", "n7"), ("n8",)]
    assert [report.severity_of(group) for group in report.groups] == ["", "warning", "error"]
    found = as_object(report)
    assert (found["healthy"], found["warnings"], found["errors"]) == (5, 2, 1)
    assert found["groups"][2] == {"nodes": ["n8"], "findings": [0, 1], "codes": ["slurmd-down", "pam-twice"]}
    assert found["findings"][1]["nodes"] == ["n6", "n7", "n8"]


def test_doctor_many_nodes__the_nodes_own_name_makes_no_difference() -> None:
    own = [answer(n, finding(seen=f"/spool/{n}/x of {n}.lab, {n}1 and x{n}")) for n in ("n1", "n2")]
    (alike,) = {
        one.finding.seen
        for one in make_report([own[0], answer("n2", finding(seen="/spool/n2/x of n2.lab, n11 and xn1"))]).findings
    }
    assert alike == "/spool/NODE/x of NODE.lab, n11 and xn1"
    assert len(make_report(own).findings) == 2
    (alone,) = make_report(own[:1]).findings
    assert alone.finding.seen == "/spool/n1/x of n1.lab, n11 and xn1"


def test_doctor_many_nodes__another_text_is_another_finding() -> None:
    report = make_report([answer("n1", finding(seen="line 3")), answer("n2", finding(seen="line 4"))])
    assert [one.nodes for one in report.findings] == [("n1",), ("n2",)]


def test_doctor_many_nodes__notes_count_only_if_they_are_wanted() -> None:
    answers = [answer("n1", finding(severity="note")), answer("n2")]
    assert summary(make_report(answers)) == "2 nodes: 2 healthy"
    assert make_report(answers).findings == ()
    noted = make_report(answers, notes=True)
    assert (len(noted.findings), summary(noted)) == (1, "2 nodes: 2 healthy")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (Answer("n1"), "node-no-answer"),
        (Answer("n1", b"", None, "ssh: connect to host n1: No route to host"), "node-no-answer"),
        (Answer("n1", b"", 127, "bash: slurm-adopt: command not found"), "node-no-answer"),
        (Answer("n1", b"", 1, "slurm-adopt: the doctor must run as root"), "node-no-answer"),
        (Answer("n1", b"", 0), "node-bad-answer"),
        (Answer("n1", b"hello", 0), "node-bad-answer"),
        (Answer("n1", b"{}", 0), "node-bad-answer"),
        (Answer("n1", b"[]", 0), "node-bad-answer"),
        (Answer("n1", b'{"findings": {}}', 0), "node-bad-answer"),
        (Answer("n1", b'{"findings": [1]}', 0), "node-bad-answer"),
        (Answer("n1", b'{"findings": []} junk', 0), "node-bad-answer"),
        (Answer("n1", b'{"findings": ' + b"[" * 100_000, 0), "node-bad-answer"),
        (Answer("n1", b'{"findings": []}' + b" " * ANSWER_CAP, 0), "node-bad-answer"),
        (Answer("n1", b"\xff\xfe{", 1), "node-bad-answer"),
        (answer("n1", *[finding()] * (FINDING_CAP + 1)), "node-bad-answer"),
        (answer("n1", finding(seen="x" * (TEXT_CAP + 1))), "node-bad-answer"),
        (answer("n1", finding(seen="")), "node-bad-answer"),
        (answer("n1", finding(severity="fatal")), "node-bad-answer"),
        (answer("n1", finding(code="<b>")), "node-bad-answer"),
        (answer("n1", finding(code="x" * 65)), "node-bad-answer"),
        (answer("n1", {**finding(), "seen": 5}), "node-bad-answer"),
        (answer("n1", {**finding(), "node": "n2"}), "node-bad-answer"),
        (answer("n1", {name: "x" for name in FIELDS[1:]}), "node-bad-answer"),
    ],
    ids=str,
)
def test_doctor_many_nodes__a_node_without_a_good_answer_is_a_finding(given: Answer, code: str) -> None:
    assert codes(given, answer("n2")) == [code]
    assert make_report([given]).findings[0].nodes == ("n1",)


def test_doctor_many_nodes__what_a_login_shell_says_first_is_passed_over() -> None:
    good = answer("n1", finding())
    assert codes(Answer("n1", b"Welcome to n1!\n" + good.data, 1)) == ["pam-twice"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_doctor_many_nodes__no_node_writes_to_the_terminal(hostile: str) -> None:
    answers = [
        answer("n1", finding(seen=hostile, why=hostile, mend=f"{hostile}\nnext")),
        Answer("n2", b"", None, hostile),
        Answer("n3", hostile.encode(), 0, hostile),
        Answer("n4", b"", 99, hostile),
    ]
    for line in text(answers).split("\n"):
        assert line.isprintable()
    # ASCII, so that it may be printed as well
    assert json.dumps(as_object(make_report(answers)), ensure_ascii=True).isprintable()


class Page(HTMLParser):
    """What a browser would make of it: tags with their attributes, and the texts in between."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "b", "div", "table", "tr", "th", "td", "code", "a",
        "details", "summary", "dl", "dt", "dd", "pre"}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "open"}


def check_page(source: str) -> Page:
    """No node can have written any of it but text."""
    seen = Page(source)
    assert {tag for tag, _ in seen.tags} <= TAGS
    assert {name for _, attributes in seen.tags for name in attributes} <= ATTRIBUTES
    assert [tag for tag, _ in seen.tags].count("style") == 1
    links = {attributes["href"] for tag, attributes in seen.tags if tag == "a"}
    assert all(re.fullmatch(r"#finding-\d+", str(link)) for link in links)
    assert {str(link)[1:] for link in links} <= {str(attributes.get("id")) for _, attributes in seen.tags}
    assert all(char.isprintable() or char == "\n" for char in source)
    policies = [attributes["content"] for tag, attributes in seen.tags if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    # nothing is fetched
    assert "url(" not in source
    assert "//" not in source.replace("&#x2F;", "/").partition("<body>")[0]
    return seen


@pytest.mark.parametrize("hostile", HOSTILE)
def test_doctor_many_nodes__no_node_writes_into_the_page(hostile: str) -> None:
    answers = [
        answer("n1", finding(seen=hostile, why=hostile, mend=hostile)),
        Answer("n2", b"", None, hostile),
        Answer("n3", hostile.encode(), 0, hostile),
        answer(f"n4{hostile}", finding()),
    ]
    seen = check_page(page(make_report(answers), "now"))
    assert "".join(char if char.isprintable() else "?" for char in hostile) in "".join(seen.texts)


@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.text(max_size=40), st.sampled_from(["error", "warning", "note"])), max_size=8
    )
)
def test_doctor_many_nodes__whatever_is_said_the_page_is_ours(said: list[tuple[str, str, str]]) -> None:
    answers = [
        answer(node, finding(seen=seen or "x", mend=seen or "x", severity=severity)) for node, seen, severity in said
    ]
    check_page(page(make_report(answers, notes=True), "now"))


def test_doctor_many_nodes__the_page_says_what_the_terminal_says() -> None:
    answers = [answer(f"n{number}") for number in range(1, 6)] + [
        answer("n6", finding(mend="first\nsecond")),
        Answer("n7"),
    ]
    report = make_report(answers)
    seen = check_page(page(report, "2026-11-28 02:00 UTC"))
    texts = "\n".join(seen.texts)
    for wanted in (
        summary(report),
        "n[1-5] (5 nodes)",
        "pam-twice",
        "node-no-answer",
        "first\nsecond",
        "2026-11-28 02:00 UTC",
    ):
        assert wanted in texts
    assert "prefers-color-scheme: dark" in texts


# The command ----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], str]]:
    """What would be run where; n2 has a warning, n3 an error, n4 does not answer."""
    calls: list[tuple[str, tuple[str, ...], str]] = []
    known = {
        "n1": answer("n1"),
        "n2": answer("n2", finding(), status=1),
        "n3": answer("n3", finding("slurmd-down", severity="error"), status=2),
        "n4": Answer("n4"),
    }

    def ask(nodes: str, command: tuple[str, ...], via: str, _: object) -> list[Answer]:
        calls.append((nodes, command, via))
        return [known[name] for name in nodes.split(",")]

    monkeypatch.setattr(asking, "ask", ask)
    return calls


@pytest.mark.parametrize(("nodes", "status"), [("n1", 0), ("n1,n2", 1), ("n1,n2,n3", 2), ("n1,n4", 2)])
def test_doctor_many_nodes__exit_status_is_that_of_the_worst(
    asked: list[Any], capsys: pytest.CaptureFixture[str], nodes: str, status: int
) -> None:
    assert command_line.main(["doctor", "--nodes", nodes]) == status
    assert asked == [(nodes, ("slurm-adopt", "doctor", "--json"), "")]
    assert capsys.readouterr().out.startswith(f"{nodes.count(',') + 1} node")


@pytest.mark.usefixtures("asked")
def test_doctor_many_nodes__json_and_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert command_line.main(["doctor", "--nodes", "n1,n2", "--json", "--html", str(file)]) == 1
    assert json.loads(capsys.readouterr().out)["nodes"] == ["n1", "n2"]
    check_page(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert command_line.main(["doctor", "--nodes", "n1", "--html", str(tmp_path / "none" / "x")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_doctor_many_nodes__what_is_passed_on(asked: list[Any]) -> None:
    command_line.main(["doctor", "--nodes", "n1", "--via", "srun", "--all"])
    assert asked == [("n1", ("slurm-adopt", "doctor", "--json", "--all"), "srun")]


@pytest.mark.parametrize(
    "words",
    [["--nodes", "n1", "--try-job", "3"], ["--nodes", "n1", "--nodename", "x"], ["--via", "srun"], ["--html", "x"]],
)
def test_doctor_many_nodes__what_does_not_go_together(
    asked: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert command_line.main(["doctor", *words]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert asked == []


# srun, a program of its own in each case ------------------------------------------------------------

SRUN = """#!/bin/sh
for word; do case $word in --nodelist=*) node=${word#--nodelist=};; esac; done
case $node in
good) echo '{"findings": []}' ;;
warned) echo '{"findings": [{"code": "x", "severity": "warning", "seen": "a", "why": "b", "mend": "c"}]}'
  echo "srun: error: warned: task 0: Exited with exit code 1" >&2; exit 1 ;;
down) echo "srun: error: Unable to allocate resources: Requested nodes are busy" >&2; exit 1 ;;
endless) exec yes ;;
esac
"""


def put_before_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """A script in the place of a program."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_before_path(tmp_path, monkeypatch, "srun", SRUN)


@pytest.mark.usefixtures("srun")
def test_doctor_many_nodes__an_srun_for_each() -> None:
    counted: list[tuple[int, int]] = []
    answers = asking.ask("good,warned,down,endless", ("slurm-adopt",), "srun", lambda *how: counted.append(how))
    report = make_report(answers)
    assert {one.nodes[0]: one.finding.code for one in report.findings} == {
        "down": "node-no-answer",
        "endless": "node-bad-answer",
        "warned": "x",
    }
    assert "Requested nodes are busy" in text(answers)
    assert sorted(counted) == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.usefixtures("srun")
@pytest.mark.parametrize("nodes", ["n[", "n[1-70000]", "-oProxyCommand=x", "", ",", "a b"])
def test_doctor_many_nodes__no_set_of_nodes(nodes: str) -> None:
    with pytest.raises(command_line.CommandError):
        asking.ask(nodes, ("slurm-adopt",), "srun", lambda *_: None)


def test_doctor_many_nodes__neither_clustershell_nor_srun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asking, "has_clustershell", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for via in ("", "srun", "clustershell"):
        with pytest.raises(command_line.CommandError) as caught:
            asking.ask("n1", ("slurm-adopt",), via, lambda *_: None)
        assert "clustershell" in caught.value.hint


# ClusterShell, with a program in ssh's place -------------------------------------------------------

SSH = """#!/bin/sh
for word; do case $word in -*|slurm-adopt) ;; *) node=$word;; esac; done
case $node in
good) echo '{"findings": []}' ;;
unbroken) exec tr '\\0' y </dev/zero ;;
loud) exec tr '\\0' y </dev/zero >&2 ;;
many) exec yes ;;
gone) echo "ssh: connect to host gone port 22: No route to host" >&2; exit 255 ;;
esac
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_before_path(tmp_path, monkeypatch, "ssh", SSH)


@pytest.mark.usefixtures("ssh")
def test_doctor_many_nodes__no_node_fills_the_memory() -> None:
    """Without a line break, on standard error, or line by line: it is ended, and the others' answers come."""
    counted: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        answers = asking.ask(
            "good,unbroken,loud,many,gone", ("slurm-adopt",), "clustershell", lambda *how: counted.append(how)
        )
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 * ANSWER_CAP, "ClusterShell's modules, and some copies of what three nodes may send"
    report = make_report(answers)
    assert {one.nodes: one.finding.code for one in report.findings} == {
        ("loud", "many", "unbroken"): "node-bad-answer",
        ("gone",): "node-no-answer",
    }
    assert f"more than {ANSWER_CAP} bytes" in report.findings[0].finding.seen
    assert "No route to host" in report.findings[1].finding.seen
    assert sorted(counted) == [(number, 5) for number in range(1, 6)]


class Harm:
    """What a gateway in foreign hands would send: unpickling it calls something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("/tmp/never", "w")


@pytest.mark.parametrize("sent", [Harm(), ["x"], {"cmd": "x"}, 7, None])
def test_doctor_many_nodes__no_gateway_runs_code_here(sent: object) -> None:
    with pytest.raises(ValueError, match="a message that is no"):
        clustershell.plain_bytes(base64.b64encode(pickle.dumps(sent)), ValueError)


@pytest.mark.parametrize("sent", [b"", b"x\xff\n" * 1000, "text"])
def test_doctor_many_nodes__what_a_gateway_may_send(sent: object) -> None:
    found = clustershell.plain_bytes(base64.b64encode(pickle.dumps(sent, 4)), ValueError)
    assert found == (sent.encode() if isinstance(sent, str) else sent)
    with pytest.raises(ValueError, match="none"):
        clustershell.plain_bytes(b"!", ValueError)
