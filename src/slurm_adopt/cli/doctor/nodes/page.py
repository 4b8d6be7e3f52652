# SPDX-License-Identifier: Apache-2.0
"""The report on many nodes as one HTML page.

Rules of this file:
1. Everything that is not of this file goes through `_text`: nodes choose what stands in findings, and may not write
   markup, attributes or styles. The page has no script, and its own policy forbids all of them, and the network.
2. No text is cut: a mend is there to be copied.
"""

from __future__ import annotations

import html

from ..finding import ERROR, WARNING
from .answers import folded, printable_lines
from .report import STATES, codes_of, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Group, Report, Shared

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --error: #b3261e; --warning: #8a5a00; --healthy: #1a7f37; --note: #0969da }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #30363d;
  --card: #161b22; --error: #ff7b72; --warning: #e3b341; --healthy: #56d364; --note: #79c0ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem }
p.when { color: var(--soft); margin: .25rem 0 1.5rem }
ul.counts { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; margin: 0; padding: 0 }
ul.counts li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; background: var(--card) }
ul.counts b { font-size: 1.5rem; margin-right: .4rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600 }
td.nodes, .on { overflow-wrap: anywhere }
code, pre { font: .9em/1.45 ui-monospace, monospace }
a { color: inherit }
details { border: 1px solid var(--line); border-left-width: .35rem; border-radius: .5rem; margin: .75rem 0;
  background: var(--card) }
summary { cursor: pointer; padding: .6rem 1rem } summary b { margin-right: .5rem }
dl { margin: 0; padding: 0 1rem .75rem; display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem }
dt { color: var(--soft) } dd { margin: 0; min-width: 0; overflow-wrap: anywhere }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; user-select: all }
b.error, td.error { color: var(--error) } b.warning, td.warning { color: var(--warning) }
b.healthy, td.healthy { color: var(--healthy) }
details.error { border-left-color: var(--error) } details.warning { border-left-color: var(--warning) }
details.note { border-left-color: var(--note) }
summary b { font-weight: 600 }
details.error summary b { color: var(--error) } details.warning summary b { color: var(--warning) }
details.note summary b { color: var(--note) }
"""


def _text(text: str) -> str:
    """For any place between tags or within a quoted attribute."""
    return html.escape(printable_lines(text), quote=True)


def page(report: Report, when: str) -> str:
    """The whole page; `when` says of what time it is."""
    return "\n".join(_parts(report, when)) + "\n"


def _parts(report: Report, when: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>slurm-adopt doctor: {_text(summary(report))}</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield f'<h1>slurm-adopt doctor</h1>\n<p class="when">{_text(when)}</p>'
    yield '<ul class="counts">'
    for number, state, style in (
        (report.healthy, "healthy", "healthy"),
        (report.count(WARNING), "with warnings", WARNING),
        (report.count(ERROR), "with errors", ERROR),
    ):
        yield f'<li><b class="{style if number else "none"}">{number}</b>{state}</li>'
    yield "</ul>\n<h2>Nodes that are alike</h2>"
    yield '<div class="scroll"><table>\n<tr><th>Nodes</th><th>State</th><th>Findings</th></tr>'
    for group in report.groups:
        yield _row(report, group)
    yield "</table></div>"
    if report.findings:
        yield "<h2>Findings, and how to mend them</h2>"
    for number, shared in enumerate(report.findings):
        yield _finding(number, shared)
    yield "</body>\n</html>"


def _row(report: Report, group: Group) -> str:
    severity = report.severity_of(group)
    first = {report.findings[index].finding.code: index for index in reversed(group.indexes)}
    links = ", ".join(
        f'<a href="#finding-{first[code]}"><code>{_text(code)}</code></a>' for code in codes_of(report, group)
    )
    style = severity if severity in (ERROR, WARNING) else "healthy"
    return (
        f'<tr><td class="nodes"><code>{_text(folded(group.nodes))}</code></td>'
        f'<td class="{style}">{STATES[severity]}</td><td>{links}</td></tr>'
    )


def _finding(number: int, shared: Shared) -> str:
    finding = shared.finding
    return (
        f'<details open class="{_text(finding.severity)}" id="finding-{number}">'
        f"<summary><b>{_text(finding.severity)}</b><code>{_text(finding.code)}</code></summary>\n<dl>"
        f'<dt>on</dt><dd class="on"><code>{_text(folded(shared.nodes))}</code></dd>'
        f"<dt>seen</dt><dd>{_text(finding.seen)}</dd><dt>why</dt><dd>{_text(finding.why)}</dd>"
        f"<dt>mend</dt><dd><pre>{_text(finding.mend)}</pre></dd></dl></details>"
    )
