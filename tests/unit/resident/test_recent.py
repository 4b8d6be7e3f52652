# SPDX-License-Identifier: Apache-2.0
"""The last hour's numbers."""

from __future__ import annotations

from slurm_adopt.resident.recent import Recent, totals

HOUR = 3600.0


def test_recent__an_hour_and_no_longer() -> None:
    recent = Recent()
    recent.count(60.0, "allow", "adopted")
    recent.count(HOUR, "allow", "adopted")
    recent.count(HOUR + 5, "deny", "no-job", 3)
    assert totals(recent.render(HOUR), HOUR) == {("allow", "adopted"): 2, ("deny", "no-job"): 3}
    assert totals(recent.render(HOUR + 60), HOUR + 60) == {("allow", "adopted"): 1, ("deny", "no-job"): 3}
    assert totals(recent.render(3 * HOUR), 3 * HOUR) == {}
    recent.count(3 * HOUR, "deny", "no-job")
    assert len(recent._minutes) == 1


def test_recent__goes_on_from_what_it_has_written_and_nothing_else() -> None:
    recent, again = Recent(), Recent()
    recent.count(HOUR, "would-deny", "no-job", 2)
    again.load(recent.render(HOUR) + "60 deny\nx y z 1\n60 deny no-job -1\n60 deny no-job 99999999999999\n")
    assert again.render(HOUR) == recent.render(HOUR)
