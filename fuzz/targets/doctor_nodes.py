# SPDX-License-Identifier: Apache-2.0
"""Whatever nodes send to `doctor --nodes`, the report names each node once, has no control character, and the page no tag of
theirs."""

from __future__ import annotations

import json

from slurm_adopt.cli.doctor.nodes.answers import Answer, make_report
from slurm_adopt.cli.doctor.nodes.page import page
from slurm_adopt.cli.doctor.nodes.report import lines_of

from ..reader import Reader

SEVERITIES = ("error", "warning", "note", "fatal")
EMPTY_PAGE = page(make_report([]), "now")


def check(data: bytes) -> None:
    """Up to four nodes: raw bytes, or findings with texts."""
    reader = Reader(data)
    answers = []
    for number in range(reader.number(5)):
        status = reader.one_of((None, 0, 1, 2, 127))
        said = reader.text(40)
        if reader.number(2):
            sent = reader.take(reader.number(60))
        else:
            texts = [reader.text(40) for _ in range(3)]
            finding = {"code": "x", "severity": reader.one_of(SEVERITIES), **dict(zip(("seen", "why", "mend"), texts))}
            sent = json.dumps({"findings": [finding] * reader.number(3)}).encode()
        answers.append(Answer(f"n{number}", sent, status, said))
    report = make_report(answers, notes=True)
    assert sorted(node for group in report.groups for node in group.nodes) == [answer.node for answer in answers]
    assert sum(report.count(severity) for severity in ("", *SEVERITIES[:3])) == len(answers)
    for line in lines_of(report, 80, colour=False):
        assert line.isprintable()
    source = page(report, "now")
    assert source.replace("\n", "").isprintable()
    # the tags are ours: so many for each row, link and finding, whatever stands in them
    links = sum(len({report.findings[index].finding.code for index in group.indexes}) for group in report.groups)
    tags = 10 * len(report.groups) + 4 * links + 30 * len(report.findings) + (2 if report.findings else 0)
    assert source.count("<") == EMPTY_PAGE.count("<") + tags
