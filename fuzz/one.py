# SPDX-License-Identifier: Apache-2.0
"""`python -m fuzz.one TARGET SEED SECONDS RUNS FINDINGS CORPUS...`: one Python target in a process of its own.

With atheris the ways that the bytes take through the package guide what is tried next. Without it (it has no wheels for
every Python) the corpus is changed at random.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sys
import time
from pathlib import Path

#: One input that takes longer than this is a finding.
SLOW_S = 20
#: A packet of the module's, and a little more. A target for which that is needless work has its own.
MAX_LEN = 4200


def main(argv: list[str]) -> int:
    """The exit status: 0 if nothing was found."""
    name, seed, seconds, runs, findings, *corpus = argv
    try:
        import atheris
    except ImportError:
        return without_coverage(name, int(seed), float(seconds), int(runs), findings, corpus)
    with atheris.instrument_imports(include=["slurm_adopt"]):
        target = importlib.import_module(f"fuzz.targets.{name}")
    options = [f"-seed={seed}", f"-artifact_prefix={findings}/", f"-timeout={SLOW_S}", "-verbosity=0"]
    options += [f"-max_len={getattr(target, 'MAX_LEN', MAX_LEN)}", "-print_final_stats=1"]
    if float(seconds) > 0:
        options.append(f"-max_total_time={max(1, round(float(seconds)))}")
    if int(runs) > 0:
        options.append(f"-atheris_runs={runs}")
    atheris.Setup([sys.argv[0], *options, *corpus], target.check)
    atheris.Fuzz()
    return 0


def mutated(data: bytes, samples: list[bytes], chance: random.Random) -> bytes:
    """One of the usual changes, a few times."""
    work = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(work) + 1)
        kind = chance.randrange(5)
        if kind == 0 and work:
            work[at % len(work)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            work.insert(at, chance.randrange(256))
        elif kind == 2:
            del work[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            work[at:at] = chance.choice(samples)[: chance.randrange(64)]
        else:
            work[at:] = chance.choice(samples)[-chance.randrange(1, 64) :]
    return bytes(work)


def without_coverage(name: str, seed: int, seconds: float, runs: int, findings: str, corpus: list[str]) -> int:
    """Replay the corpus, then changed pieces of it."""
    target = importlib.import_module(f"fuzz.targets.{name}")
    samples = [path.read_bytes() for folder in corpus for path in sorted(Path(folder).iterdir())] or [b""]
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    done = 0
    while done < len(samples) or (time.monotonic() < until if seconds > 0 else done < runs):
        data = samples[done] if done < len(samples) else mutated(chance.choice(samples), samples, chance)
        try:
            target.check(data)
        except Exception:
            path = Path(findings, f"crash-{hashlib.sha1(data).hexdigest()}")  # noqa: S324  # a name, as libFuzzer's
            path.write_bytes(data)
            print(f"without coverage: run {done}, kept as {path}", file=sys.stderr)
            raise
        done += 1
    print(f"stat::number_of_executed_units: {done}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
