# SPDX-License-Identifier: Apache-2.0
"""Whatever the helper or service does, the module answers in time, as told, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import IGNORE, PERM_DENIED, SESSION_ERR, SUCCESS, Ran, Room, soonest

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREACHABLE, UNTRUSTED = "helper-unreachable", "helper-untrusted"
BAD, TIMEOUT, GOOD = "helper-bad-reply", "helper-timeout", "good"
#: Seconds for scenarios that run into the deadline, and what a busy machine may add to a run in ms. What is silent stays so for 20 s: a call that is ended by its deadline is far below, on a busy machine too.
SHORT, SLACK_MS = 0.3, 8000
ERR = 10 * 8 + 3  # authpriv.err

MALFORMED = """
    garbage nul oversize huge good-and-more truncated duplicate duplicate-unknown bad-result no-result no-reason bad-reason no-version
    late-version version-2 fields-65 bad-level no-equals lower-key long-key env-gap env-name env-empty-name unset-value unset-empty unset-gap
    join-without-fd drip fd-unasked denied-with-fd fd-too-few fd-too-many fd-flood fd-nine join-unknown join-no-failed
""".split()

#: scenario -> what comes of it (as one-shot helper, as service)
OUTCOMES: dict[str, tuple[str, str]] = {
    **{name: (BAD, BAD) for name in MALFORMED},
    "silent": (TIMEOUT, TIMEOUT),
    "late": (TIMEOUT, TIMEOUT),
    "stop": (TIMEOUT, TIMEOUT),
    "grandchild": (TIMEOUT, TIMEOUT),
    "exit": (UNREACHABLE, UNREACHABLE),
    "exit-unread": (UNREACHABLE, ""),
    "closes": ("", UNREACHABLE),
    "half-way": ("", UNREACHABLE),
    "full": ("", UNREACHABLE),
    "foreign": ("", UNTRUSTED),
    "empty-packet": (UNREACHABLE, UNREACHABLE),
    "retry": (BAD, UNREACHABLE),
    "nobody-sends": (UNTRUSTED, GOOD),
    "good": (GOOD, GOOD),
    "good-4096": (GOOD, GOOD),
    "unknown-key": (GOOD, GOOD),
    "slow": (GOOD, GOOD),
    "deaf": (GOOD, ""),
}
FAILURES = {"ignore": IGNORE, "allow": SUCCESS, "deny": PERM_DENIED}
VERDICTS = {IGNORE: "ignore", SUCCESS: "allow", PERM_DENIED: "deny", SESSION_ERR: "deny"}
TOLD = {
    UNREACHABLE: "the login helper could not be reached",
    UNTRUSTED: "the login helper is not root's",
    BAD: "the login helper's answer was malformed",
    TIMEOUT: "the login helper did not answer in time",
}


def check_untouched(ran: Ran) -> None:
    """Descriptors, signals, mask, locale, directory, umask, children and namespaces are as before."""
    assert ran.changed == []
    assert ran.namespaces["before"] == ran.namespaces["after"]


def check_failed(ran: Ran, reason: str, code: int, phase: str = "account") -> None:
    """The one line in the log, the one sentence for the user if it is a refusal, nothing else."""
    check_untouched(ran)
    assert ran.code == code
    assert len(ran.log) == 1
    priority, line = ran.log[0]
    assert priority == ERR
    assert re.fullmatch(
        rf"pam_slurm_adopt\(sshd:(account|session)\): verdict={VERDICTS[code]} reason={reason} "
        rf'user="alice" uid=1501 service=sshd from=192\.0\.2\.7 phase={phase} ms=\d+',
        line,
    ), line
    expected = []
    if VERDICTS[code] == "deny":
        expected = [
            f"Access denied: this node could not check your Slurm jobs ({TOLD[reason]}). "
            "Please tell your administrator."
        ]
    assert ran.errors == expected
    assert (ran.infos, ran.env) == ([], {})


def check(ran: Ran, outcome: str, failure: str, timeout_s: float) -> None:
    assert ran.elapsed_ms <= timeout_s * 1000 + SLACK_MS
    if outcome == GOOD:
        check_untouched(ran)
        assert ran.code == SUCCESS
    else:
        if outcome == TIMEOUT:
            assert ran.elapsed_ms >= timeout_s * 1000 - 2
        check_failed(ran, outcome, FAILURES[failure])


def timeout_for(outcome: str) -> float:
    return SHORT if outcome == TIMEOUT else 10


@pytest.mark.parametrize("scenario", [name for name, outcomes in OUTCOMES.items() if outcomes[0]])
def test_hostile__helper(room: Room, scenario: str) -> None:
    """mode=oneshot with a helper that misbehaves, for each value of action_generic_failure."""
    outcome = OUTCOMES[scenario][0]
    limit = timeout_for(outcome)
    for failure in ("ignore",) if outcome == GOOD else FAILURES:
        options = ("mode=oneshot", f"timeout={limit}", f"action_generic_failure={failure}")
        check(room.call(*options, scenario=scenario, driver=("-r", "192.0.2.7")), outcome, failure, limit)


@pytest.mark.parametrize("scenario", [name for name, outcomes in OUTCOMES.items() if outcomes[1]])
def test_hostile__service(room: Room, scenario: str) -> None:
    """mode=service with a service that misbehaves: the helper is never started."""
    outcome = OUTCOMES[scenario][1]
    limit = timeout_for(outcome)
    with room.serving(scenario):
        for failure in ("ignore",) if outcome == GOOD else FAILURES:
            options = ("mode=service", f"timeout={limit}", f"action_generic_failure={failure}")
            ran = room.call(*options, scenario="session-err", driver=("-r", "192.0.2.7"))
            check(ran, outcome, failure, limit)


@pytest.mark.parametrize("scenario", [name for name, outcomes in OUTCOMES.items() if outcomes[1]])
def test_hostile__service_then_helper(room: Room, scenario: str) -> None:
    """mode=auto: a service that cannot answer is followed by the helper; a malformed answer is not."""
    outcome = OUTCOMES[scenario][1]
    limit = 4 if outcome == TIMEOUT else 10  # what is left for the helper is enough to start a Python on a busy machine
    with room.serving(scenario):
        ran = room.call(
            f"timeout={limit}", "profile=strict", scenario="session-err", driver=("-r", "192.0.2.7"), user="alice"
        )
    if outcome == GOOD:
        assert ran.code == SUCCESS
    elif outcome == BAD:
        check_failed(ran, BAD, PERM_DENIED)
    else:
        check_untouched(ran)
        assert (ran.code, ran.errors) == (SESSION_ERR, ["no"])  # what the helper said
        assert [line.split("): ")[1].split(" user=")[0] for _, line in ran.log] == {
            UNREACHABLE: [],
            UNTRUSTED: ["event=service-failed reason=helper-untrusted"],
            TIMEOUT: ["event=service-failed reason=helper-timeout"],
        }[outcome]
    if scenario in ("silent", "grandchild", "stop"):
        assert ran.elapsed_ms >= limit * 790, "the service may use up 80 % of the time"


def test_hostile__no_service(room: Room) -> None:
    """mode=service without one fails at once; mode=auto asks the helper."""
    check_failed(room.call("mode=service", driver=("-r", "192.0.2.7")), UNREACHABLE, IGNORE)
    ran = room.call(scenario="session-err")
    assert (ran.code, ran.log) == (SESSION_ERR, [])


def test_hostile__closed_before_the_request(room: Room) -> None:
    """Sending to a peer that has closed raises no SIGPIPE, which would end a host program that does not expect it."""
    with room.serving("closes"):
        ran = room.call("mode=service", driver=("-w", "-r", "192.0.2.7"))
        assert ran.elapsed_ms >= 200
        check_failed(ran, UNREACHABLE, IGNORE)


def test_hostile__both_silent(room: Room) -> None:
    """The service and the helper share the one deadline."""
    with room.serving("silent"):
        ran = soonest(lambda: room.call("timeout=0.5", scenario="silent", driver=("-r", "192.0.2.7")), 750)
    assert ran.elapsed_ms >= 500
    assert [line.split("reason=")[1].split()[0] for _, line in ran.log] == [TIMEOUT, TIMEOUT]
    assert "event=service-failed" in ran.log[0][1]
    assert "verdict=ignore" in ran.log[1][1]


@pytest.mark.parametrize("scenario", ["silent", "exit", "garbage"])
def test_hostile__session_phase(room: Room, scenario: str) -> None:
    """A refusal in the session phase is PAM_SESSION_ERR."""
    ran = room.call(
        "mode=oneshot",
        "profile=strict",
        "timeout=0.3",
        function="open_session",
        scenario=scenario,
        driver=("-r", "192.0.2.7"),
    )
    check_failed(ran, OUTCOMES[scenario][0], SESSION_ERR, "open_session")


@pytest.fixture
def helper_file(room: Room) -> Iterator[Room]:
    """The room with a helper file that may be spoilt."""
    saved = room.helper.read_bytes()
    yield room
    if room.helper.is_dir() and not room.helper.is_symlink():
        room.helper.rmdir()
    room.helper.unlink(missing_ok=True)
    room.helper.write_bytes(saved)
    room.helper.chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        ("group-writable", UNTRUSTED),
        ("other-writable", UNTRUSTED),
        ("not-root's", UNTRUSTED),
        ("symlink", UNTRUSTED),
        ("directory", UNTRUSTED),
        ("missing", UNREACHABLE),
        ("not-executable", UNREACHABLE),
        ("no-interpreter", UNREACHABLE),
    ],
)
def test_hostile__helper_file(helper_file: Room, spoil: str, outcome: str) -> None:
    """The helper is started only if nobody but root can have written it."""
    helper = helper_file.helper
    if spoil == "group-writable":
        helper.chmod(0o775)
    elif spoil == "other-writable":
        helper.chmod(0o757)
    elif spoil == "not-root's":
        os.chown(helper, 65534, 0)
    elif spoil == "not-executable":
        helper.chmod(0o644)
    elif spoil == "no-interpreter":
        helper.write_text("#!/nonexistent\n")
    else:
        saved = helper.with_name("saved")
        helper.rename(saved)
        if spoil == "symlink":
            helper.symlink_to(saved)
        elif spoil == "directory":
            helper.mkdir()
    check_failed(helper_file.call("mode=oneshot", "profile=strict", driver=("-r", "192.0.2.7")), outcome, PERM_DENIED)


def test_hostile__not_root(room: Room) -> None:
    """A host program without root's rights gets no helper of root's."""
    ran = room.call("mode=oneshot", driver=("-r", "192.0.2.7", "-u", "65534"))
    check_failed(ran, UNREACHABLE, IGNORE)


def holders(room: Room) -> list[tuple[int, int]]:
    """(number, process group) of what is left of drivers: a process that keeps a number in use."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_driver = entry.name.isdigit() and os.readlink(entry / "exe") == str(room.driver)
            if is_driver:
                found.append((int(entry.name), int((entry / "stat").read_text().rpartition(") ")[2].split()[2])))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("scenario", ["silent", "hold"])
def test_hostile__the_number_of_a_login_that_slurmstepd_may_still_move_is_held(room: Room, scenario: str) -> None:
    """By a process in the group that the caller led for a moment, with nothing open; not after any other refusal."""
    before = {number for number, _ in holders(room)}
    with room.serving("denied"):
        room.call("mode=service")
    assert {number for number, _ in holders(room)} <= before
    with room.serving(scenario):
        room.call("mode=service", "timeout=0.2")
    left = [(number, group) for number, group in holders(room) if number not in before]
    assert len(left) == 1
    number, group = left[0]
    assert not Path(f"/proc/{group}").exists(), "the caller has ended"
    assert os.listdir(f"/proc/{number}/fd") == []
    os.kill(number, signal.SIGKILL)


def test_hostile__the_user_of_a_set_uid_program_cannot_kill_what_holds_the_number(room: Room) -> None:
    """Real, effective and saved user and group of the holder are root, also where su has called the module."""
    before = {number for number, _ in holders(room)}
    with room.serving("silent"):
        room.call("mode=service", "timeout=0.2", driver=("-r", "192.0.2.7", "-R", "65534"))
    (holder,) = {number for number, _ in holders(room)} - before
    status = Path(f"/proc/{holder}/status").read_text()
    os.kill(holder, signal.SIGKILL)
    assert "\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n" in status


def test_hostile__a_login_that_is_killed_while_it_asks_dies_when_its_number_is_held(room: Room) -> None:
    """sshd's LoginGraceTime may run out in the middle of an adoption: the user chooses when."""
    before = {number for number, _ in holders(room)}
    with room.serving("silent"), ThreadPoolExecutor(1) as pool:
        call = pool.submit(room.call, "mode=service", "timeout=1")
        while not (started := {number for number, _ in holders(room)} - before):
            assert not call.done()
        (caller,) = started
        while not waits_with_end(caller):
            assert not call.done(), "it waits for an answer, and could be killed at any time"
        os.kill(caller, signal.SIGALRM)
        with pytest.raises(AssertionError, match=f"-{signal.SIGALRM.value}"):
            call.result()
    left = [(number, group) for number, group in holders(room) if number not in before]
    assert [group for _, group in left] == [caller]
    assert not Path(f"/proc/{caller}").exists()
    os.kill(left[0][0], signal.SIGKILL)


def waits_with_end(number: int) -> bool:
    """Whether signals that would end the process wait."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    return all(blocked >> (one.value - 1) & 1 for one in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP))
