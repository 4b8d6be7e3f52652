# SPDX-License-Identifier: Apache-2.0
"""The service's numbers, in Prometheus' text format.

Rules of this file:
1. Pure: this file counts and formats; others read and store the text.
2. Label values are ours (verdicts, reason codes, paths). No user input creates a time series.
3. `load` reads what `render` wrote, so that counters survive an idle exit. It ignores everything else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Labels = tuple[tuple[str, str], ...]

#: name: (type, help). A histogram's unit is seconds.
FAMILIES = {
    "slurm_adopt_logins_total": (
        "counter",
        "Decided requests, by phase, verdict, reason code and path (service or one-shot helper).",
    ),
    "slurm_adopt_would_deny_total": ("counter", "Logins that enforce= has let in, by the reason for their refusal."),
    "slurm_adopt_login_seconds": ("histogram", "Seconds from accepting a request to sending its reply."),
    "slurm_adopt_callers_total": ("counter", "Caller-ID lookups, by result."),
    "slurm_adopt_strangers_total": (
        "counter",
        "Connections from processes that are not root's; the service closes them unread.",
    ),
    "slurm_adopt_strangers_in_steps_total": (
        "counter",
        "Processes of other users that slurmstepd moved into a job because their pid was reused.",
    ),
    "slurm_adopt_bad_requests_total": ("counter", "Malformed requests."),
    "slurm_adopt_sent_away_total": (
        "counter",
        "Requests left to the one-shot helper because the service was at a limit.",
    ),
    "slurm_adopt_dropped_total": ("counter", "Connections closed without a reply, by reason."),
    "slurm_adopt_moves_total": ("counter", "Requests to move a login, by result and reason code."),
    "slurm_adopt_faults_total": ("counter", "Internal errors."),
    "slurm_adopt_logins_running": ("gauge", "Requests that are being decided."),
    "slurm_adopt_logins_waiting": ("gauge", "Requests that wait to be decided."),
    "slurm_adopt_sessions": ("gauge", "Open sessions that the service watches."),
    "slurm_adopt_steps": ("gauge", "Extern steps on the node, by whether their owner is known."),
    "slurm_adopt_step_questions_total": ("counter", "Ownership queries sent to slurmstepds."),
    "slurm_adopt_index_rebuilds_total": ("counter", "Rebuilds of the index of extern steps, by reason."),
    "slurm_adopt_conf_reads_total": ("counter", "Reads of slurm.conf."),
    "slurm_adopt_audit_lost_total": ("counter", "Audit lines that could not be written."),
    "slurm_adopt_loop_seconds": (
        "histogram",
        "Longest turn of the service's event loop in each second, if 5 ms or more.",
    ),
    "slurm_adopt_start_time_seconds": ("gauge", "Start of the service, in seconds since 1970."),
    "slurm_adopt_memory_bytes": ("gauge", "Resident memory of the service."),
}
#: Counters that are there from the start: Prometheus takes the first value it sees for no increase, and these are to
#: be alerted on at the first event.
FROM_ZERO: tuple[tuple[str, Labels], ...] = (
    ("slurm_adopt_strangers_total", ()),
    ("slurm_adopt_strangers_in_steps_total", (("undone", "false"),)),
    ("slurm_adopt_strangers_in_steps_total", (("undone", "true"),)),
    ("slurm_adopt_bad_requests_total", ()),
    ("slurm_adopt_sent_away_total", ()),
    ("slurm_adopt_faults_total", ()),
    ("slurm_adopt_audit_lost_total", ()),
)
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """Counts per bucket (not cumulated; the last is +Inf) and the sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[sum(seconds > bound for bound in BUCKETS_S)] += 1
        self.total += seconds


class Metrics:
    """All numbers of one service."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (name, tuple(labels.items()))
        self._values[key] = self._values.get(key, 0) + amount

    def start_at_zero(self) -> None:
        """Show the counters of `FROM_ZERO` before their first event."""
        for name, labels in FROM_ZERO:
            self.count(name, 0, **dict(labels))

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._values[(name, tuple(labels.items()))] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._histograms.setdefault((name, tuple(labels.items())), Histogram()).observe(seconds)

    def value(self, name: str, **labels: str) -> float:
        """A counter or gauge, summed over all time series that have these labels."""
        wanted = set(labels.items())
        return sum(value for (key, found), value in self._values.items() if key == name and wanted <= set(found))

    def render(self) -> str:
        """Everything as text."""
        lines = []
        for name, (kind, help_text) in FAMILIES.items():
            samples = list(self._samples(name))
            if samples:
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"

    def _samples(self, family: str) -> Iterator[str]:
        for (name, labels), value in sorted(self._values.items()):
            if name == family:
                yield _sample(name, labels, value)
        for (name, labels), histogram in sorted(self._histograms.items(), key=lambda item: item[0]):
            if name != family:
                continue
            total = 0
            for bound, count in zip((*BUCKETS_S, "+Inf"), histogram.counts):
                total += count
                yield _sample(f"{name}_bucket", (*labels, ("le", str(bound))), total)
            yield _sample(f"{name}_sum", labels, round(histogram.total, 6))
            yield _sample(f"{name}_count", labels, total)

    def load(self, text: str) -> None:
        """Go on from the counters and histograms that `render` wrote; gauges are of the process that is gone."""
        before: dict[tuple[str, Labels], float] = {}
        for line in text.splitlines():
            sample = _parse(line)
            if sample is None:
                continue
            name, labels, value = sample
            if FAMILIES.get(name, ("",))[0] == "counter":
                self._values[(name, labels)] = self._values.get((name, labels), 0) + value
            elif name.endswith("_sum") and name[:-4] in FAMILIES:
                self._histograms.setdefault((name[:-4], labels), Histogram()).total += value
            elif name.endswith("_bucket") and name[:-7] in FAMILIES:
                self._load_bucket((name[:-7], labels[:-1]), labels[-1:], value, before)

    def _load_bucket(
        self, key: tuple[str, Labels], le: Labels, value: float, before: dict[tuple[str, Labels], float]
    ) -> None:
        bounds = [str(bound) for bound in (*BUCKETS_S, "+Inf")]
        if le and le[0][0] == "le" and le[0][1] in bounds:
            histogram = self._histograms.setdefault(key, Histogram())
            histogram.counts[bounds.index(le[0][1])] += int(value - before.get(key, 0))
            before[key] = value


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{text}"' for key, text in labels)
    return f"{name}{{{shown}}} {value:.15g}" if shown else f"{name} {value:.15g}"


def _parse(line: str) -> tuple[str, Labels, float] | None:
    """One sample as `_sample` writes it; None for any other line."""
    head, _, number = line.rpartition(" ")
    name, brace, rest = head.partition("{")
    labels: list[tuple[str, str]] = []
    try:
        value = float(number)
        for pair in rest[:-1].split(",") if brace else ():
            key, text = pair.split("=")
            labels.append((key, text.strip('"')))
    except ValueError:
        return None
    finite = value == value and abs(value) < 1e18
    return (name, tuple(labels), value) if finite and not line.startswith("#") else None
