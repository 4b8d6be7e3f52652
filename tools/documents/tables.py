# SPDX-License-Identifier: Apache-2.0
"""The tables of docs."""

from __future__ import annotations

from documents.remedies import FINE, LOOK
from slurm_adopt.model import REASONS
from slurm_adopt.options.schema import LOG_LEVELS, LOG_NUMBERS, OPTIONS, OptionSpec, default_of

#: Groups of reason codes by how they begin, in the order of the documents; the first that fits.
GROUPS = (
    ("user-", "What users ask for: slurm-adopt jobs, use, move"),
    ("caller-", "Caller ID: they stand as `caller=`"),
    ("step-", "Why a job's slurmstepd was of no use: they stand as `failed=` and `unanswered=`"),
    ("helper-", "What the module says when it has no answer"),
)
VERDICTS = "Verdicts and faults of a login"
EXCEPTIONS = {"user-manager-failed": VERDICTS, "user-unknown": VERDICTS}


def values_of(spec: OptionSpec) -> tuple[str, ...]:
    """The words an option takes as they are shown, default first; () for free text."""
    if spec.values == LOG_LEVELS + LOG_NUMBERS:
        return ()
    return spec.values


def form_of(spec: OptionSpec) -> str:
    """What free text must be."""
    return "any SlurmdDebug name or number" if spec.values else spec.form


def options_table() -> str:
    rows = ["| Option | Values, default first | `strict` | Meaning |", "| --- | --- | --- | --- |"]
    for spec in OPTIONS:
        default = default_of(spec)
        if spec.values and not values_of(spec):
            values = f"`{default}`, or {form_of(spec)}"
        elif spec.values:
            values = ", ".join(f"`{value}`" for value in spec.values)
        else:
            values = (f"`{default}`; " if default else "") + spec.form
        name = f"`{spec.name}`" + ("" if spec.origin == "original" else " ⁺")
        rows.append(f"| {name} | {values} | {f'`{spec.strict}`' if spec.strict else ''} | {spec.doc} |")
    return "\n".join([*rows, "", "⁺ not in the original"])


def reason_groups() -> dict[str, list[str]]:
    """Heading: codes, in the order of the table."""
    found: dict[str, list[str]] = {heading: [] for heading in (VERDICTS, *(heading for _, heading in GROUPS))}
    for code in REASONS:
        heading = next((heading for start, heading in GROUPS if code.startswith(start)), VERDICTS)
        found[EXCEPTIONS.get(code, heading)].append(code)
    return found


def reasons_table() -> str:
    parts = []
    for heading, codes in reason_groups().items():
        rows = [f"## {heading}", "", "| Code | Meaning | The user is told |", "| --- | --- | --- |"]
        for code in codes:
            reason = REASONS[code]
            marks = " **security**" if reason.security else ""
            rows.append(f"| `{code}` | {reason.meaning}{marks} | {reason.user_text} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def told_table() -> str:
    """What users read, and the code that stands in the log for it."""
    codes: dict[str, list[str]] = {}
    for code, reason in REASONS.items():
        if reason.user_text and code not in FINE:
            codes.setdefault(reason.user_text, []).append(code)
    rows = ["| The user reads | Code |", "| --- | --- |"]
    rows += [f"| {words} | {', '.join(f'`{code}`' for code in found)} |" for words, found in codes.items()]
    return "\n".join(rows)


def remedies_table() -> str:
    """What to look at for each code that means more than that all is well."""
    parts = []
    for heading, codes in reason_groups().items():
        rows = [f"### {heading}", "", "| Code | Look at |", "| --- | --- |"]
        rows += [f"| `{code}` | {LOOK[code]} |" for code in codes if code in LOOK]
        parts.append("\n".join(rows))
    fine = ", ".join(f"`{code}`" for code in FINE)
    return "\n\n".join([*parts, f"Nothing is wrong with these: {fine}."])
