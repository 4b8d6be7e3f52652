# SPDX-License-Identifier: Apache-2.0
"""What an answer asks for is done, in order, and no more."""

from __future__ import annotations

import pytest

from .conftest import IGNORE, PERM_DENIED, SESSION_ERR, SUCCESS, Room
from .test_hostile_peer import check_untouched

PAM_SILENT = "0x8000"
LEVELS = {3: "err", 4: "warning", 5: "notice", 6: "info", 7: "debug"}
AUTHPRIV = 10 * 8


def log_of(room: Room, scenario: str) -> list[tuple[int, str]]:
    ran = room.call("mode=oneshot", scenario=scenario)
    check_untouched(ran)
    return [(priority - AUTHPRIV, line) for priority, line in ran.log]


@pytest.mark.parametrize(
    ("scenario", "code"),
    [("good", SUCCESS), ("ignore", IGNORE), ("denied", PERM_DENIED), ("session-err", SESSION_ERR)],
)
@pytest.mark.parametrize("phase", ["account", "open_session"])
def test_carry_out__result(room: Room, scenario: str, code: int, phase: str) -> None:
    """RESULT is the return code, in both phases and from both sides."""
    assert room.call("mode=oneshot", function=phase, scenario=scenario).code == code
    with room.serving(scenario):
        assert room.call("mode=service", function=phase).code == code


def test_carry_out__log(room: Room) -> None:
    """LOG goes to authpriv with the priority asked for, and gets the time it took."""
    [(priority, line)] = log_of(room, "denied")
    assert LEVELS[priority] == "notice"
    prefix, _, ms = line.rpartition(" ms=")
    assert prefix == "pam_slurm_adopt(sshd:account): verdict=deny reason=no-job"
    assert 0 <= int(ms) < 5000
    assert log_of(room, "ignore") == []


def test_carry_out__control_characters(room: Room) -> None:
    """No byte from outside moves a cursor, ends a line or is taken for a format."""
    ran = room.call("mode=oneshot", scenario="controls")
    assert ran.errors == ["a?[2Jb?c?d?"]
    [(priority, line)] = ran.log
    assert LEVELS[priority - AUTHPRIV] == "warning"
    assert "one?two? %s%n%d ms=" in line
    ran = room.call("mode=oneshot", scenario="percent")
    assert ran.errors == ["%s%n%s"]
    assert "%n%s ms=" in ran.log[0][1]
    assert room.call("mode=oneshot", scenario="utf8").errors == ["h\xe9las"]


def test_carry_out__empty_text(room: Room) -> None:
    """Empty texts are not shown."""
    ran = room.call("mode=oneshot", scenario="empty-text")
    assert (ran.code, ran.errors, ran.infos, ran.log) == (PERM_DENIED, [], [], [])


def test_carry_out__info_and_environment(room: Room) -> None:
    """INFO is shown unless PAM_SILENT; ENV goes into the PAM environment."""
    ran = room.call("mode=oneshot", scenario="info", function="open_session")
    assert (ran.infos, ran.env) == (["in job 5"], {"SLURM_JOB_ID": "5", "EMPTY": ""})
    ran = room.call("mode=oneshot", scenario="info", driver=("-f", PAM_SILENT))
    assert (ran.infos, ran.env) == ([], {"SLURM_JOB_ID": "5", "EMPTY": ""})
    ran = room.call("mode=oneshot", scenario="denied", driver=("-f", PAM_SILENT))
    assert ran.errors == ["Access denied: no job"]


def test_carry_out__unset(room: Room) -> None:
    """A variable is taken out of the PAM environment; one that is not there is no error in the log."""
    ran = room.call("mode=oneshot", scenario="unset", function="open_session")
    assert (ran.code, ran.env) == (0, {"KEPT": "1"})
    assert not any("NEVER_THERE" in line for _, line in ran.log)


def test_carry_out__refusal_exports_nothing(room: Room) -> None:
    """A refused user gets neither environment nor information."""
    ran = room.call("mode=oneshot", scenario="denied-env")
    assert (ran.code, ran.env, ran.infos) == (PERM_DENIED, {}, [])


def test_carry_out__join(room: Room) -> None:
    """The namespaces are joined, and no others; their descriptors are closed."""
    ran = room.call("mode=oneshot", scenario="join", function="open_session")
    assert (ran.code, ran.env, ran.infos, ran.changed) == (SUCCESS, {"IN": "container"}, ["in"], [])
    assert ran.words["joining"] == ["close-on-exec"]
    before, after = ran.namespaces["before"], ran.namespaces["after"]
    assert {kind for kind in before if before[kind] != after[kind]} == {"uts", "ipc"}
    assert "joined ms=" in ran.log[0][1]


@pytest.mark.parametrize(("scenario", "code"), [("join-none-deny", SESSION_ERR), ("join-none-allow", SUCCESS)])
@pytest.mark.parametrize("phase", ["account", "open_session"])
def test_carry_out__join_none(room: Room, scenario: str, code: int, phase: str) -> None:
    """If not one namespace can be joined JOIN_FAILED is the result; the log says so and not what was hoped for."""
    ran = room.call("mode=oneshot", scenario=scenario, function=phase)
    check_untouched(ran)
    assert (ran.code, ran.errors, ran.infos) == (code, ["no container"], [])
    assert ran.env == ({"A": "1"} if code == SUCCESS else {})
    [(priority, line)] = ran.log
    assert LEVELS[priority - AUTHPRIV] == "err"
    verdict = "allow" if code == SUCCESS else "deny"
    assert (
        f'verdict={verdict} reason=join-failed after=adopted kind=mount joined=0 errno=22 user="alice" uid=1501' in line
    )


@pytest.mark.parametrize(("phase", "code"), [("account", PERM_DENIED), ("open_session", SESSION_ERR)])
def test_carry_out__join_half(room: Room, phase: str, code: int) -> None:
    """Half in and half out is refused, whatever JOIN_FAILED and action_generic_failure say."""
    ran = room.call("mode=oneshot", "action_generic_failure=allow", scenario="join-half", function=phase)
    assert (ran.code, ran.changed, ran.env) == (code, [], {})
    assert ran.errors == [
        "Access denied: your session could not be put into your job's namespaces. Please tell your administrator."
    ]
    assert "reason=join-failed after=adopted kind=mount joined=1 errno=22" in ran.log[0][1]
