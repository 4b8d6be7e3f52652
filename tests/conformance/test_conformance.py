# SPDX-License-Identifier: Apache-2.0
"""Our module does what the original does, unless the table says why not."""

from __future__ import annotations

import pytest

from slurm_adopt.options.schema import OPTIONS

from .cases import Case
from .groups import CASES, CASES_WITH_CONTAINERS, measure_all
from .situations import Measured


@pytest.fixture(scope="module")
def measurement() -> dict[str, Measured] | Exception:
    try:
        return measure_all()
    except Exception as error:
        return error


@pytest.fixture
def measured(measurement: dict[str, Measured] | Exception) -> dict[str, Measured]:
    if isinstance(measurement, Exception):
        pytest.skip("see test_conformance__everything_is_measured")
    return measurement


#: Values that the original does not have.
OUR_VALUES = {"action_unknown=preferred"}


def test_conformance__everything_is_measured(measurement: dict[str, Measured] | Exception) -> None:
    """Fails once, with the reason, where every case would."""
    if isinstance(measurement, Exception):
        raise measurement


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance__case(case: Case, measured: dict[str, Measured]) -> None:
    if case in CASES_WITH_CONTAINERS and case.name not in measured:
        pytest.skip("this Slurm has no job_container/tmpfs")
    got = measured[case.name]
    assert case.explains_original(got.original), f"the original did not do what the table says: {got}"
    assert got.ours == case.ours, f"ours did not do what the table says: {got}"
    if case.differs is None:
        assert got.ours == got.original


def test_conformance__names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_conformance__every_value_of_every_option_is_tried() -> None:
    tried = {word for case in CASES for word in case.call.args.split()}
    for option in OPTIONS:
        if option.origin == "original" and option.name != "log_level":
            missing = {f"{option.name}={value}" for value in option.values} - tried
            assert missing <= OUR_VALUES
    assert {word.partition("=")[0] for word in tried} >= {
        option.name for option in OPTIONS if option.origin == "original"
    }


def test_conformance__root_is_never_refused(measured: dict[str, Measured]) -> None:
    cases = [case for case in CASES if case.call.user == "root" and case.name in measured]
    assert len(cases) > 50
    for case in cases:
        assert measured[case.name].ours.result in ("success", "ignore"), case.name


def test_conformance__strict_admits_nobody_outside_of_a_job(measured: dict[str, Measured]) -> None:
    strict = [case for case in CASES if "profile=strict" in case.call.args and case.call.user != "root"]
    cases = [case for case in strict if case.name in measured]
    assert len(cases) > 10
    for case in cases:
        ours = measured[case.name].ours
        if case.call.service == "sshd" and ours.result in ("success", "ignore"):
            assert ours.job, case.name
            assert ("SLURM_JOB_ID", ours.job) in ours.env, case.name


def test_conformance__ours_holds_its_time_limit(measured: dict[str, Measured]) -> None:
    for name, got in measured.items():
        assert got.raw["ours"]["elapsed_s"] < 5.5, name
