# SPDX-License-Identifier: Apache-2.0
"""The return code for every option value known in C, every kind of user and service, and every phase."""

from __future__ import annotations

import pytest

from .conftest import IGNORE, PERM_DENIED, SESSION_ERR, SUCCESS, Room, soonest

PHASES = ("account", "open_session", "close_session")

#: options of the line -> code of an account call whose helper exits without an answer (IGNORE is the default's)
FAILURE_OPTIONS = [
    ((), IGNORE),
    (("action_generic_failure=ignore",), IGNORE),
    (("action_generic_failure=allow",), SUCCESS),
    (("action_generic_failure=deny",), PERM_DENIED),
    (("action_generic_failure=foo",), PERM_DENIED),
    (("action_generic_failure=",), PERM_DENIED),
    (("action_generic_failure=allowed",), PERM_DENIED),
    (("action_generic_failure=Allow",), PERM_DENIED),
    (("action_generic_failure=deny", "action_generic_failure=allow"), SUCCESS),
    (("action_generic_failure=allow", "action_generic_failure=foo"), PERM_DENIED),
    (("action_generic_failure",), IGNORE),
    (("action_generic_failur=deny",), IGNORE),
    (("ACTION_GENERIC_FAILURE=deny",), IGNORE),
    (("profile=strict",), PERM_DENIED),
    (("profile=foo",), PERM_DENIED),
    (("profile=compatible",), IGNORE),
    (("profile=strict", "profile=compatible"), IGNORE),
    (("profile=strict", "action_generic_failure=allow"), PERM_DENIED),
    (("action_generic_failure=allow", "profile=strict"), PERM_DENIED),
    (("action_no_jobs=deny", "some other words", "x=y", "="), IGNORE),
]


@pytest.mark.parametrize(
    ("options", "code"), FAILURE_OPTIONS, ids=lambda value: "+".join(value) if isinstance(value, tuple) else ""
)
def test_retval__action_generic_failure(room: Room, options: tuple[str, ...], code: int) -> None:
    """Exact values, the last one holds, an unknown one denies, and profile=strict beats everything."""
    assert room.call("mode=oneshot", *options, scenario="exit").code == code


@pytest.mark.parametrize(
    ("service", "options", "asked"),
    [
        ("sshd", (), True),
        ("login", (), False),
        ("login", ("service=login",), True),
        ("sshd", ("service=login",), False),
        ("login", ("service=*",), True),
        ("sshd", ("service=ssh",), False),
        ("sshd", ("service=sshdx",), False),
        ("sshd", ("service=",), True),
        ("login", ("service=",), False),
        ("sshd", (f"service={'x' * 65}",), True),
        ("sshd", ("service=login", "service=sshd"), True),
        ("sshd", ("service=login,sshd",), True),
        ("login", ("service=login,sshd",), True),
        ("log", ("service=login,sshd",), False),
        ("sshd", ("service=login,ssh",), False),
        # no list of names: the default
        ("login", ("service=login,",), False),
        ("login", ("service=,login",), False),
        ("sshd", ("service=login,,x",), True),
        ("login", ("service=sshd,*",), False),
        ("s" * 64, (f"service=login,{'s' * 64}",), True),
        ("login", (f"service=login,{'s' * 65}",), False),
        ("login", (f"service=login,{','.join(['s' * 62] * 4)}",), False),
    ],
)
def test_retval__service(room: Room, service: str, options: tuple[str, ...], asked: bool) -> None:
    """Any other service gets PAM_IGNORE at once and silently, in every phase, even if the user is unknown."""
    ran = room.call("mode=oneshot", *options, service=service, scenario="denied")
    assert ran.code == (PERM_DENIED if asked else IGNORE)
    if asked:
        return
    for phase in PHASES:
        for user in ("alice", "root", "mallory"):
            ran = room.call("profile=strict", *options, service=service, user=user, function=phase, scenario="silent")
            assert (ran.code, ran.log, ran.errors) == (IGNORE, [], [])


@pytest.mark.parametrize("user", ["root", "toor"])
@pytest.mark.parametrize(
    "options", [(), ("ignore_root=1",), ("ignore_root=foo",), ("ignore_root=",), ("ignore_root=0", "ignore_root=1")]
)
def test_retval__root(room: Room, user: str, options: tuple[str, ...]) -> None:
    """Uid 0, by whatever name, is let past before anything can fail: nobody is asked, nothing is logged."""
    broken = ("profile=strict", "timeout=foo", "socket=relative", f"mode={'x' * 200}", *(f"a{n}=" for n in range(40)))
    for phase in PHASES:
        ran = room.call(*broken, *options, user=user, function=phase, scenario="silent")
        assert (ran.code, ran.log, ran.errors) == (IGNORE, [], [])


@pytest.mark.parametrize("user", ["root", "toor"])
@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("good", SUCCESS),
        ("ignore", IGNORE),
        ("denied", IGNORE),
        ("session-err", IGNORE),
        ("garbage", IGNORE),
        ("exit", IGNORE),
        ("silent", IGNORE),
        ("join-none-deny", IGNORE),
        ("retry", IGNORE),
    ],
)
def test_retval__root_is_asked_for(room: Room, user: str, scenario: str, code: int) -> None:
    """With ignore_root=0 root may be adopted, but is never refused nor shown an error."""
    for phase in ("account", "open_session"):
        ran = room.call(
            "mode=oneshot",
            "ignore_root=0",
            "profile=strict",
            "timeout=0.5",
            user=user,
            function=phase,
            scenario=scenario,
        )
        assert (ran.code, ran.errors) == (code, [])
        assert len(ran.log) == (0 if scenario in ("ignore", "session-err") else 1)
    too_large = room.call("ignore_root=0", "profile=strict", *(f"a{n}=" for n in range(40)), user=user)
    assert (too_large.code, too_large.errors) == (IGNORE, [])


def test_retval__root_half_joined(room: Room) -> None:
    """Not even a session that is half in the job's namespaces is refused to root."""
    ran = room.call("mode=oneshot", "ignore_root=0", user="root", scenario="join-half")
    assert (ran.code, ran.errors) == (IGNORE, [])


@pytest.mark.parametrize("user", ["mallory", "", "-", "a" * 300, 'evil"\n\\'])
def test_retval__unknown_user(room: Room, user: str) -> None:
    """An unknown, empty or missing user is PAM_SESSION_ERR with one line in the log; nobody is asked or prompted."""
    for phase in ("account", "open_session"):
        ran = room.call("action_generic_failure=allow", user=user, function=phase, scenario="silent")
        assert (ran.code, ran.errors, ran.infos) == (SESSION_ERR, [], [])
        assert len(ran.log) == 1
        assert "verdict=deny reason=user-unknown user=" in ran.log[0][1]
        assert "uid=- " in ran.log[0][1]
        assert "\n" not in ran.log[0][1]
    assert room.call(user=user, function="close_session").code == SUCCESS


@pytest.mark.parametrize(
    ("options", "limit_ms"),
    [
        (("timeout=0.1",), 100),
        (("timeout=0.25",), 250),
        (("timeout=1",), 1000),
        (("timeout=foo", "timeout=0.3"), 300),
        (("timeout=000.300",), None),
        (("timeout=0.300",), 300),
    ],
)
def test_retval__timeout(room: Room, options: tuple[str, ...], limit_ms: int | None) -> None:
    """timeout= holds for the whole call."""
    limit_ms = limit_ms or 300
    ran = soonest(lambda: room.call("mode=oneshot", *options, scenario="silent"), limit_ms + 250)
    assert ran.elapsed_ms >= limit_ms - 2


@pytest.mark.parametrize(
    "value",
    [
        "foo",
        "",
        "0",
        "0.09",
        "300.001",
        "301",
        "1000",
        "0001",
        "-1",
        "+1",
        " 1",
        "1 ",
        ".5",
        "5.",
        "1.0000",
        "1e1",
        "1,5",
        "0x1",
        "nan",
        "inf",
    ],
)
def test_retval__timeout_unknown(room: Room, value: str) -> None:
    """A timeout= that is not one is the default of 5 seconds: seen in the deadline that the helper is told."""
    room.call("mode=oneshot", f"timeout={value}")
    seen = room.seen()
    assert 4e9 < int(seen["fields"]["DEADLINE"]) - seen["now_ns"] < 5e9


@pytest.mark.parametrize(("value", "seconds"), [("0.5", 0.5), ("300", 300), ("007", 7), ("12.125", 12.125)])
def test_retval__timeout_known(room: Room, value: str, seconds: float) -> None:
    room.call("mode=oneshot", f"timeout={value}")
    seen = room.seen()
    assert seconds * 1e9 - 0.4e9 < int(seen["fields"]["DEADLINE"]) - seen["now_ns"] < seconds * 1e9


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("auto", SUCCESS),
        ("service", SUCCESS),
        ("oneshot", SESSION_ERR),
        ("foo", SUCCESS),
        ("Oneshot", SUCCESS),
        ("", SUCCESS),
    ],
)
def test_retval__mode(room: Room, mode: str, code: int) -> None:
    """mode=: the service says success here, the helper session_err; an unknown mode is auto."""
    with room.serving("good"):
        assert room.call(f"mode={mode}", scenario="session-err").code == code
    without = {"service": IGNORE}.get(mode, SESSION_ERR)
    assert room.call(f"mode={mode}", scenario="session-err").code == without


@pytest.mark.parametrize("value", ["relative", "", "/" + "x" * 107])
def test_retval__socket_unknown(room: Room, value: str) -> None:
    """A socket= that cannot be one is the default, where nobody listens here."""
    with room.serving("good"):
        assert room.call("mode=service", scenario="good").code == SUCCESS
        assert room.call("mode=service", f"socket={value}", scenario="good").code == IGNORE


@pytest.mark.parametrize(
    "scenario", ["good", "denied", "silent", "garbage", "exit", "foreign", "join-none-deny", "full"]
)
def test_retval__close_session(room: Room, scenario: str) -> None:
    """close_session tells the service, waits at most half a second, and is always PAM_SUCCESS."""
    with room.serving(scenario):
        for mode in ("auto", "service"):
            options = (f"mode={mode}", "profile=strict", "timeout=300")
            ran = soonest(lambda: room.call(*options, function="close_session", scenario="denied"), 700)  # noqa: B023
            assert (ran.code, ran.errors, ran.infos, ran.changed) == (SUCCESS, [], [], [])
    if scenario == "good":
        assert room.seen()["fields"]["PHASE"] == "close_session"
    if scenario == "silent":
        assert ran.elapsed_ms >= 498
        assert "verdict=allow reason=helper-timeout" in ran.log[0][1]
    if scenario == "foreign":
        assert "reason=helper-untrusted" in ran.log[0][1]


@pytest.mark.parametrize("mode", ["auto", "service", "oneshot"])
def test_retval__close_session_alone(room: Room, mode: str) -> None:
    """Without a service nobody is told: no helper is started, nothing is logged."""
    ran = room.call(f"mode={mode}", "profile=strict", function="close_session", scenario="good")
    assert (ran.code, ran.log) == (SUCCESS, [])
    assert not (room.helper.parent / "seen").exists()


def test_retval__required(room: Room) -> None:
    """With `required`, as sites have it, a refusal refuses and an admission admits."""
    assert room.call("mode=oneshot", scenario="denied", control="required").code == PERM_DENIED
    assert room.call("mode=oneshot", scenario="good", control="sufficient").code == SUCCESS


@pytest.mark.parametrize(
    ("options", "marked"),
    [
        (("action_generic_failure=deny",), "1"),
        (("profile=strict",), "1"),
        ((), None),
        (("profile=strict", "enforce=adopt"), None),
    ],
)
def test_retval__the_session_phase_knows_that_the_account_line_is_strict(
    room: Room, options: tuple[str, ...], marked: str | None
) -> None:
    """In the PAM handle, where only modules write: a session line with other options is not weaker then."""
    room.call("mode=oneshot", *options, function="login")
    seen = room.seen()["fields"]
    assert seen["PHASE"] == "open_session"
    assert seen.get("STRICT") == marked


@pytest.mark.parametrize("value", ["verbose", "debug", "debug5", "4", "9"])
def test_retval__another_service_is_said_once_if_wanted(room: Room, value: str) -> None:
    """In the account phase, by its own reason code; nobody is looked up or asked."""
    line = ("service=login", f"log_level={value}")
    ran = room.call(*line, user="mallory", scenario="silent")
    [(priority, text)] = ran.log
    assert (ran.code, priority & 7) == (IGNORE, 6)
    assert 'verdict=ignore reason=other-service user="mallory" uid=- service=sshd ' in text
    assert room.call(*line, function="open_session", scenario="silent").log == []
    assert room.call("service=login", "log_level=info", scenario="silent").log == []


@pytest.mark.parametrize(
    ("scenario", "options", "marked"),
    [
        ("good", (), "asked"),
        ("leave", (), "left"),
        ("exit", ("action_generic_failure=allow",), "asked"),
        ("leave", ("service=login",), None),
    ],
)
def test_retval__the_session_phase_knows_what_the_account_line_has_answered(
    room: Room, scenario: str, options: tuple[str, ...], marked: str | None
) -> None:
    """In the PAM handle. A line that is not for this service has not been asked."""
    if marked is None:
        assert room.call("mode=oneshot", *options, function="login", scenario=scenario).code == IGNORE
        room.call("mode=oneshot", function="open_session", scenario=scenario)
    else:
        room.call("mode=oneshot", *options, function="login", scenario=scenario)
    seen = room.seen()["fields"]
    assert (seen["PHASE"], seen.get("ACCOUNT")) == ("open_session", marked)


@pytest.mark.parametrize("enforce", ["no", "adopt", "yes", "", "maybe", "NO"])
@pytest.mark.parametrize("scenario", ["exit", "garbage", "silent", "join-half", "join-none-deny"])
def test_retval__enforce(room: Room, enforce: str, scenario: str) -> None:
    """What the module decides by itself: refused with yes (and with what nobody knows), else let past and logged."""
    lenient = enforce in ("no", "adopt")
    options = ("mode=oneshot", "profile=strict", "timeout=0.5", f"enforce={enforce}")
    for phase, code in (("account", PERM_DENIED), ("open_session", SESSION_ERR)):
        ran = room.call(*options, function=phase, scenario=scenario)
        refused = SESSION_ERR if scenario == "join-none-deny" else code
        assert ran.code == (IGNORE if lenient else refused)
        (verdict,) = [text for _, text in ran.log if "verdict=" in text]
        assert "verdict=deny " in verdict
        assert (f" enforce={enforce} " in verdict) == lenient
        if scenario != "join-none-deny":  # that text is the helper's, who sends none where nobody is refused
            assert bool(ran.errors) == (not lenient)


@pytest.mark.parametrize(("enforce", "code"), [("no", IGNORE), ("adopt", IGNORE), ("yes", SESSION_ERR)])
def test_retval__enforce_and_an_unknown_user(room: Room, enforce: str, code: int) -> None:
    ran = room.call(f"enforce={enforce}", user="mallory", scenario="silent")
    assert ran.code == code
    assert "verdict=deny reason=user-unknown" in ran.log[0][1]


@pytest.mark.parametrize(("enforce", "code"), [("no", IGNORE), ("adopt", SUCCESS), ("yes", SUCCESS)])
def test_retval__enforce_and_an_answer(room: Room, enforce: str, code: int) -> None:
    """A helper of before that knows no enforce= says success: with `no` that does not count."""
    assert room.call("mode=oneshot", f"enforce={enforce}", scenario="good").code == code
