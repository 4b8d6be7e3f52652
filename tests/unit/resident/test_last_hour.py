# SPDX-License-Identifier: Apache-2.0
"""The last hour's numbers."""

from __future__ import annotations

from slurm_adopt.resident.last_hour import LastHour, totals

HOUR = 3600.0


def test_last_hour__an_hour_and_no_longer() -> None:
    hour = LastHour()
    hour.count(60.0, "allow", "adopted")
    hour.count(HOUR, "allow", "adopted")
    hour.count(HOUR + 5, "deny", "no-job", 3)
    assert totals(hour.render(HOUR), HOUR) == {("allow", "adopted"): 2, ("deny", "no-job"): 3}
    assert totals(hour.render(HOUR + 60), HOUR + 60) == {("allow", "adopted"): 1, ("deny", "no-job"): 3}
    assert totals(hour.render(3 * HOUR), 3 * HOUR) == {}
    hour.count(3 * HOUR, "deny", "no-job")
    assert len(hour._minutes) == 1


def test_last_hour__goes_on_from_what_it_has_written_and_nothing_else() -> None:
    hour, again = LastHour(), LastHour()
    hour.count(HOUR, "would-deny", "no-job", 2)
    again.load(hour.render(HOUR) + "60 deny\nx y z 1\n60 deny no-job -1\n60 deny no-job 99999999999999\n")
    assert again.render(HOUR) == hour.render(HOUR)
