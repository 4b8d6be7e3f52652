# SPDX-License-Identifier: Apache-2.0
"""The program that loads the module (sshd) is left as it was: children, signals, descriptors, and what it connects."""

from __future__ import annotations

import re
import signal
import socket

import pytest

from .conftest import PERM_DENIED, SESSION_ERR, SUCCESS, Room
from .test_hostile_peer import check_untouched

CHILD_SIGNALS = ("default", "handler", "ignore", "blocked")
SCENARIOS = {"slow": SUCCESS, "exit": PERM_DENIED, "silent": PERM_DENIED, "grandchild": PERM_DENIED}


# Not here: a helper that has ended and left a process, in a host that ignores SIGCHLD. The kernel has given the
# helper's number away by then, and the module rather leaves that process than kill by a number that may be another's.
@pytest.mark.parametrize(
    ("scenario", "child_signal"),
    [(s, c) for s in SCENARIOS for c in CHILD_SIGNALS if (s, c) != ("grandchild", "ignore")],
)
def test_host_program__no_child_of_its_own(room: Room, scenario: str, child_signal: str) -> None:
    """The host's SIGCHLD handler never hears of the helper, and whatever it does the helper is gone afterwards."""
    patience = 30 if scenario == "slow" else 0.4  # a busy machine takes its time
    options = ("mode=oneshot", "profile=strict", f"timeout={patience}")
    ran = room.call(*options, scenario=scenario, driver=("-s", child_signal))
    check_untouched(ran)
    assert ran.code == SCENARIOS[scenario]
    assert ran.words["handler"] == ["0", "0", "0"]


@pytest.mark.parametrize("child_signal", CHILD_SIGNALS)
@pytest.mark.parametrize("scenario", ["slow", "silent"])
def test_host_program__child_of_its_own(room: Room, child_signal: str, scenario: str) -> None:
    """A child of the host's that ends meanwhile is the host's to collect, and the host gets its signal."""
    ran = room.call("mode=oneshot", "timeout=0.4", scenario=scenario, driver=("-s", child_signal, "-o", "50"))
    calls, reaped, is_other = ran.words["handler"]
    if child_signal == "handler":
        assert ran.words["other"][0] == "gone"
        assert (reaped, is_other) == ("1", "1")
        assert int(calls) >= 1
    elif child_signal == "ignore":
        assert ran.words["other"][0] == "gone"
    else:
        assert ran.words["other"] == ["collected", "7"]
    # a SIGCHLD that waits to be delivered is right if the host blocks it and its own child has ended
    allowed = {"pending"} if child_signal == "blocked" else set()
    assert {change[0] for change in ran.changed} == allowed


def test_host_program__closed_descriptors(room: Room) -> None:
    """With descriptors 0 to 2 closed, none of the module's becomes one of them, at no time."""
    ran = room.call("mode=oneshot", scenario="good", driver=("-c",))
    assert (ran.code, ran.changed) == (SUCCESS, [])
    assert room.seen()["parent_low_fds"] == []
    with room.serving("silent"):
        ran = room.call("timeout=5", scenario="good", driver=("-c",))
        assert (ran.code, ran.changed) == (SUCCESS, [])
        assert room.seen()["parent_low_fds"] == []
    ran = room.call("mode=oneshot", scenario="fd-too-many", driver=("-c",))
    assert ran.changed == []


@pytest.mark.parametrize("scenario", ["good", "garbage", "fd-flood"])
def test_host_program__many_calls(room: Room, scenario: str) -> None:
    """Nine calls in one process leave what one leaves: nothing."""
    check_untouched(room.call("mode=oneshot", scenario=scenario, driver=("-n", "9")))
    with room.serving(scenario):
        check_untouched(room.call("mode=service", driver=("-n", "9")))


def test_host_program__helper_inherits_nothing(room: Room) -> None:
    """The helper: no environment, no argument, /dev/null and its socket, default signals, own session, root."""
    room.call("mode=oneshot", driver=("-s", "ignore", "-e", "LD_PRELOAD=x"))
    seen = room.seen()
    assert (seen["env"], seen["argv"], seen["cwd"], seen["umask"]) == (b"", [], "/", 0o022)
    assert seen["fd_count"] == 3
    assert seen["fds"][0].startswith("socket:")
    assert (seen["fds"][1], seen["fds"][2]) == ("/dev/null", "/dev/null")
    ignored = int(seen["signals"]["SigIgn"], 16)
    # Python itself ignores SIGPIPE and SIGXFSZ; glibc keeps 32 and 33 to itself, whatever they were inherited as
    others = (signal.SIGPIPE, signal.SIGXFSZ, 32, 33)
    assert ignored & ~sum(1 << (number - 1) for number in others) == 0
    assert int(seen["signals"]["SigBlk"], 16) == 0
    assert seen["leader"]
    assert seen["uids"] == ["0", "0", "0", "0"]


CALLER = "SLURM_ADOPT_CHOSEN=caller"


def test_host_program__request(room: Room) -> None:
    """The request says what PAM and the connection say, and the Python side reads it so."""
    from slurm_adopt.wire.login_exchange import Connection, decode_request

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        room.call(
            "mode=oneshot",
            "x=a b=c",
            function="open_session",
            driver=("-r", "192.0.2.7", "-t", "ssh", "-e", "SLURM_JOB_ID=42", "-e", CALLER, "-p", str(port)),
        )
        _, client = listener.accept()
    request = decode_request(room.seen()["request"])
    assert (request.phase, request.service, request.user, request.uid) == ("open_session", "sshd", "alice", 1501)
    assert (request.rhost, request.tty, request.job, request.chosen) == ("192.0.2.7", "ssh", "42", "caller")
    assert request.args == (f"socket={room.socket_path}", "mode=oneshot", "x=a b=c")
    [connection] = request.connections
    assert connection == Connection(connection.fd, 4, "127.0.0.1", client[1], "127.0.0.1", port)
    assert connection.fd > 2
    assert 0 < request.deadline_ns - room.seen()["now_ns"] < 5_000_000_000


def test_host_program__service_deadline(room: Room) -> None:
    """In mode=auto the service is told when the module stops waiting for it, in mode=service the whole time."""
    for mode, share in (("auto", 0.8), ("service", 1.0)):
        with room.serving("good"):
            room.call(f"mode={mode}", "timeout=100")
        seen = room.seen()
        left = (int(seen["fields"]["DEADLINE"]) - seen["now_ns"]) / 1e9
        assert 100 * share - 1 < left < 100 * share


JOB_7 = "SLURM_JOB_ID=7"


@pytest.mark.parametrize("between", ["SLURM_JOB_ID", "SLURM_JOB_ID=", JOB_7, "OTHER=1"])
def test_host_program__the_session_knows_the_account_phases_job(room: Room, between: str) -> None:
    """pam_env puts into the environment what users write into ~/.pam_environment, and takes away as well."""
    ran = room.call("mode=oneshot", function="login", scenario="info", driver=("-e", JOB_7, "-E", between))
    fields = room.seen()["fields"]
    assert (ran.code, fields["PHASE"], fields["JOB"]) == (SUCCESS, "open_session", "5")
    # also of what an earlier session line has said: there may be one before pam_env and one after it
    assert ran.env["SLURM_JOB_ID"] == "5"


def test_host_program__a_login_that_was_put_nowhere_has_no_mark(room: Room) -> None:
    """As one whose account phase ran in another process: what is in the environment is all there is."""
    room.call("mode=oneshot", function="login", driver=("-E", JOB_7))
    assert room.seen()["fields"]["JOB"] == "7"
    room.call("mode=oneshot", function="login")
    assert "JOB" not in room.seen()["fields"]


def test_host_program__hints_too_long(room: Room) -> None:
    """What the helper can do without is left out when it is too long or empty."""
    room.call("mode=oneshot", driver=("-r", "r" * 257, "-t", "t" * 65, "-e", "SLURM_JOB_ID=" + "1" * 21))
    assert {"RHOST", "TTY", "JOB", "CHOSEN"}.isdisjoint(room.seen()["fields"])
    room.call("mode=oneshot", driver=("-r", "r" * 256, "-t", "t" * 64, "-e", "SLURM_JOB_ID=" + "1" * 20))
    assert {"RHOST", "TTY", "JOB"}.issubset(room.seen()["fields"])
    room.call("mode=oneshot", driver=("-r", "", "-t", ""))
    assert {"RHOST", "TTY", "JOB"}.isdisjoint(room.seen()["fields"])


def test_host_program__request_too_large(room: Room) -> None:
    """A request that does not fit is a failure like all others; a service name that long is one, too."""
    for options in [tuple(f"a{n}=" for n in range(33))]:
        ran = room.call("profile=strict", *options)
        assert (ran.code, ran.changed) == (PERM_DENIED, [])
        assert "reason=request-too-large" in ran.log[0][1]
        assert ran.errors
    ran = room.call("service=*", "profile=strict", service="s" * 65, function="open_session")
    assert ran.code == SESSION_ERR
    assert "reason=request-too-large" in ran.log[0][1]


def test_host_program__hostile_names(room: Room) -> None:
    """A remote host's name in the log cannot forge a field or a line."""
    ran = room.call("mode=oneshot", scenario="exit", driver=("-r", 'x reason=root\nverdict="\\'))
    assert r" from=x\x20reason=root\x0averdict=\x22\x5c phase=" in ran.log[0][1]
    assert len(re.findall(" reason=", ran.log[0][1])) == 1
