# SPDX-License-Identifier: Apache-2.0
"""The options of a PAM line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.options.parse import parse_options
from slurm_adopt.options.schema import OPTIONS, default_of

DENY = {"action_no_jobs", "action_unknown", "action_adopt_failure", "action_generic_failure"}


def test_options__defaults_are_the_originals() -> None:
    options = parse_options([])
    assert (options.action_no_jobs, options.action_unknown) == ("deny", "newest")
    assert (options.action_adopt_failure, options.action_generic_failure) == ("allow", "ignore")
    assert (options.disable_x11, options.join_container, options.ignore_root) == (False, True, True)
    assert (options.single_job_skip_rpc, options.services, options.nodename) == (True, ("sshd",), "")
    assert (options.timeout_s, options.mode, options.socket) == (5.0, "auto", "/run/slurm-adopt/login.sock")
    assert options.problems == ()


@pytest.mark.parametrize("spec", OPTIONS, ids=lambda spec: spec.name)
def test_options__every_documented_value_is_taken_exactly(spec) -> None:  # type: ignore[no-untyped-def]
    for value in spec.values or (default_of(spec) or ("/a/file" if "path" in spec.form else "node1"),):
        assert parse_options([f"{spec.name}={value}"]).problems == ()
    for wrong in (f"{spec.name}=", f"{spec.name.upper()}=x", spec.name, f"{spec.name}x=1"):
        assert len(parse_options([wrong]).problems) == 1


@pytest.mark.parametrize("name", sorted(DENY))
@pytest.mark.parametrize("value", ["denyXYZ", "Deny", "allowfoo", "", "den", "ignore "])
def test_options__a_typo_makes_it_stricter_never_weaker(name: str, value: str) -> None:
    """The original matches prefixes without regard to case, and keeps its default for the rest."""
    options = parse_options([f"{name}={value}"])
    assert getattr(options, name) == "deny"
    assert options.problems


def test_options__strict_wins_over_what_stands_beside_it() -> None:
    options = parse_options(["profile=strict", "action_adopt_failure=allow", "action_no_jobs=ignore"])
    assert {options.action_no_jobs, options.action_adopt_failure, options.action_generic_failure} == {"deny"}
    assert options.action_unknown == "newest"


def test_options__twice_the_last_holds_and_is_reported() -> None:
    options = parse_options(["service=login", "service=*"])
    assert options.services == ("*",)
    assert options.problems == ("service= stands there twice, the last one holds",)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", 0.1), ("300", 300), ("2.5", 2.5), ("0", 5), ("301", 5), ("-1", 5), ("1e2", 5), ("٣", 5), ("nan", 5)],
)
def test_options__timeout(text: str, value: float) -> None:
    assert parse_options([f"timeout={text}"]).timeout_s == value


@given(st.lists(st.text(max_size=40), max_size=6))
def test_options__no_line_is_fatal_or_silent(args: list[str]) -> None:
    options = parse_options(args)
    known = {spec.name for spec in OPTIONS}
    assert len(options.problems) >= sum(1 for arg in args if arg.partition("=")[0] not in known)


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), ("60", 60), ("0.25", 0.25), ("0.09", 1), ("60.1", 1), ("", 1)]
)
def test_options__caller_timeout(text: str, value: float) -> None:
    options = parse_options([f"caller_timeout={text}"])
    assert options.caller_timeout_s == value
    assert bool(options.problems) == (value == 1)


@pytest.mark.parametrize(
    ("value", "services"),
    [
        ("login", ("login",)),
        ("sshd,login", ("sshd", "login")),
        ("*", ("*",)),
        ("sshd,,login", ("sshd",)),
        (",sshd", ("sshd",)),
        ("sshd,", ("sshd",)),
        ("", ("sshd",)),
        ("x" * 65, ("sshd",)),
        (",".join(["x" * 64] * 3), ("x" * 64,) * 3),
        (",".join(["x" * 60] * 5), ("sshd",)),
    ],
)
def test_options__services(value: str, services: tuple[str, ...]) -> None:
    options = parse_options([f"service={value}"])
    assert options.services == services
    assert bool(options.problems) == (services != tuple(value.split(",")))


def test_options__which_services_a_line_works_in() -> None:
    assert parse_options(["service=sshd,login"]).works_in("login")
    assert not parse_options(["service=sshd,login"]).works_in("log")
    assert parse_options(["service=*"]).works_in("anything")
    assert not parse_options([]).works_in("login")


@pytest.mark.parametrize(
    ("arg", "names"),
    [
        ("allow_users=ops,@staff,bob@example.org", ("ops", "@staff", "bob@example.org")),
        ("allow_groups=wheel,4711,domain users", ("wheel", "4711", "domain users")),
        ("allow_users=", ()),
        ("allow_users=a,,b", ()),
        ("allow_users=@", ()),
        ("allow_groups=@staff", ()),
        ("allow_groups=", ()),
    ],
)
def test_options__exempt_names(arg: str, names: tuple[str, ...]) -> None:
    """What is not a list of names exempts nobody, and is said."""
    options = parse_options([arg])
    assert options.allow_users + options.allow_groups == names
    assert bool(options.problems) == (not names)


@pytest.mark.parametrize(
    "text", ["help@example.org", "Questions? Ask help@example.org, +49 30 1234.", "☎ 1234, help@example.org", "x" * 160]
)
def test_options__hint_is_one_printable_line(text: str) -> None:
    options = parse_options([f"hint={text}"])
    assert (options.hint, options.problems) == (text, ())


@pytest.mark.parametrize(
    "text", ["", "x" * 161, "ä" * 81, "a\nb", "a\tb", "\x1b[31mred", "a\x9bb", "\udcff", "\u202eabc", "a\u2028b"]
)
def test_options__a_hint_that_is_none_is_left_out_and_reported(text: str) -> None:
    options = parse_options([f"hint={text}"])
    assert options.hint == ""
    assert len(options.problems) == 1


def test_options__hint_jobs_is_off_unless_it_says_yes() -> None:
    assert [parse_options(args).hint_jobs for args in ([], ["hint_jobs=yes"], ["hint_jobs=Yes"], ["hint_jobs=1"])] == [
        False,
        True,
        False,
        False,
    ]
