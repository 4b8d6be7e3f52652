# SPDX-License-Identifier: Apache-2.0
"""What becomes of a session: every way that libpam may take through a stack.

A control says what each return code of its module does (pam.conf(5)): go on, fail, end the stack, jump. Which code a
module will return nobody knows beforehand, so every way is followed that leads to a session; sshd opens no other.

Rules of this file:
1. No I/O: lines in, one of three answers out. tests/libpam runs the same stacks through libpam.
2. `UNKNOWN` is an answer: some ways end inside of the job, some outside. Nobody guesses which one is taken.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from .pam_stack import PamLine, Stack

    #: the action for each return code; some codes
    Control = tuple[tuple[str, ...], tuple[int, ...]]
    Outlook = Literal["stays", "leaves", "unknown"]
    #: What a line may answer: a return code, and whether the session is out of its job then (None: as it was before).
    Answers = Iterable[tuple[int, "bool | None"]]
    #: level of the line before; impression and code so far; the same at the beginning of each open substack; outside
    State = tuple[int, int, int, "tuple[tuple[int, int], ...]", bool]

STAYS: Outlook = "stays"
LEAVES: Outlook = "leaves"
UNKNOWN: Outlook = "unknown"

#: PAM's return codes by number, as controls name them.
CODES = (
    *("success", "open_err", "symbol_err", "service_err", "system_err", "buf_err", "perm_denied", "auth_err"),
    *("cred_insufficient", "authinfo_unavail", "user_unknown", "maxtries", "new_authtok_reqd", "acct_expired"),
    *("session_err", "cred_unavail", "cred_expired", "cred_err", "no_module_data", "conv_err", "authtok_err"),
    *("authtok_recover_err", "authtok_lock_busy", "authtok_disable_aging", "try_again", "ignore", "abort"),
    *("authtok_expired", "module_unknown", "bad_item", "conv_again", "incomplete"),
)
SUCCESS, PERM_DENIED, NEW_AUTHTOK_REQD, SESSION_ERR, IGNORE, MODULE_UNKNOWN = 0, 6, 12, 14, 25, 28
ACTIONS = ("ignore", "ok", "done", "bad", "die", "reset")
KEYWORDS = {
    "required": "success=ok new_authtok_reqd=ok ignore=ignore default=bad",
    "requisite": "success=ok new_authtok_reqd=ok ignore=ignore default=die",
    "sufficient": "success=done new_authtok_reqd=done default=ignore",
    "optional": "success=ok new_authtok_reqd=ok default=ignore",
}
UNDECIDED, POSITIVE, NEGATIVE = 0, 1, 2
BAD = ("bad",) * len(CODES)


def judge(stack: Stack, answers: Callable[[PamLine], Answers | None], outside: bool = False) -> Outlook:
    """Whether a session is in its job at the end of its stack.

    `answers` says what a line may answer; None: anything, and the session stays where it is. `outside`: it is out of
    its job at the beginning. A stack that lets nobody in takes nobody out.
    """
    ends = {state[4] for state in walk(stack.lines, answers, outside)[-1] if state[2] == SUCCESS}
    if stack.doubts or len(ends) > 1:
        return UNKNOWN
    return LEAVES if True in ends else STAYS


def walk(
    lines: tuple[PamLine, ...], answers: Callable[[PamLine], Answers | None], outside: bool = False
) -> list[set[State]]:
    """For each line the states that libpam may come to it with; behind the last line those that it ends with."""
    came: list[set[State]] = [set() for _ in range(len(lines) + 1)]
    came[0].add((0, UNDECIDED, PERM_DENIED, ((UNDECIDED, PERM_DENIED),), outside))
    for index, line in enumerate(lines):
        if not came[index]:
            continue
        if line.what == "substack":
            came[index + 1].update((line.level, *state[1:]) for state in came[index])
            continue
        actions, different = actions_of(line.control)
        given = _answers_of(line, answers, different)
        for state in came[index]:
            for code, moved in given:
                goal, after = _step(lines, index, state, actions[code], code)
                came[goal].add(after if moved is None else (*after[:4], moved))
    came[-1] = {_finish(state) for state in came[-1]}
    return came


def _answers_of(
    line: PamLine, answers: Callable[[PamLine], Answers | None], different: tuple[int, ...]
) -> list[tuple[int, bool | None]]:
    if line.what == "broken":
        return [(PERM_DENIED, None)]
    given = answers(line)
    return [(code, None) for code in different] if given is None else list(given)


def _step(lines: tuple[PamLine, ...], index: int, state: State, action: str, code: int) -> tuple[int, State]:
    """Where libpam goes on, and with what, after the module has answered `code`."""
    before, impression, status, saved, outside = state
    level = lines[index].level
    saved = (*saved[:level], (impression, status)) if before < level else saved[: level + 1]
    goal = index + 1
    if action == "reset":
        impression, status = saved[level]
    elif action in ("ok", "done"):
        if impression == UNDECIDED or (impression == POSITIVE and status == SUCCESS):
            impression, status = POSITIVE, code
        if action == "done" and impression == POSITIVE:
            goal = _end(lines, index)
    elif action in ("bad", "die"):
        if impression != NEGATIVE:
            impression, status = NEGATIVE, PERM_DENIED if code == IGNORE else code
        if action == "die":
            goal = _end(lines, index)
    elif action != "ignore":
        goal, left = jump(lines, index, int(action))
        if left:
            impression, status = NEGATIVE, PERM_DENIED
    return goal, (level, impression, status, saved, outside)


def _end(lines: tuple[PamLine, ...], index: int) -> int:
    """Behind the substack, or the stack, that a line stands in."""
    level = lines[index].level
    index += 1
    while index < len(lines) and lines[index].level >= level:
        index += 1
    return index


def jump(lines: tuple[PamLine, ...], index: int, count: int) -> tuple[int, int]:
    """Where a jump over `count` lines ends, and how many of them there are not; a substack counts as one line."""
    level = lines[index].level
    index += 1
    while count and index < len(lines) and lines[index].level >= level:
        index += 1
        while index < len(lines) and lines[index].level > level:
            index += 1
        count -= 1
    return index, count


def _finish(state: State) -> State:
    level, impression, status, saved, outside = state
    lacks = status == SUCCESS and impression != POSITIVE
    return level, impression, PERM_DENIED if lacks else status, saved, outside


def actions_of(control: str) -> Control:
    """What a control does with each return code; and one code for each thing that makes a difference."""
    return BY_KEYWORD.get(control.lower()) or _read_control(control)


def _read_control(control: str) -> Control:
    actions = _parse(control)
    first: dict[tuple[str, bool, bool], int] = {}
    for code, action in enumerate(actions):
        first.setdefault((action, code == SUCCESS, code == IGNORE and action in ("bad", "die")), code)
    return actions, tuple(first.values())


def _parse(control: str) -> tuple[str, ...]:
    """As libpam does: names by their beginning, case counts, and one mistake makes everything bad."""
    found: dict[int, str] = {}
    rest = control.lstrip()
    while rest:
        code = next((code for code, name in enumerate((*CODES, "default")) if rest.startswith(name)), -1)
        if code < 0:
            return BAD
        rest = rest[len((*CODES, "default")[code]) :].lstrip()
        if not rest.startswith("="):
            return BAD
        rest = rest[1:].lstrip()
        action = next((name for name in ACTIONS if rest.startswith(name)), "")
        if not action:
            action = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            if not action or len(action) > 4 or not int(action):
                return BAD
        rest = rest[len(action) :].lstrip()
        if code < len(CODES):
            found[code] = action
        else:
            found = {**dict.fromkeys(range(len(CODES)), action), **found}
    return tuple(found.get(code, "bad") for code in range(len(CODES)))


#: Most lines have a keyword for a control.
BY_KEYWORD = {keyword: _read_control(control) for keyword, control in KEYWORDS.items()}
