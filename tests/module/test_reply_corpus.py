# SPDX-License-Identifier: Apache-2.0
"""The reply parser against its corpus, each sample cut at every byte, and a hundred thousand changed samples.

A file of tests/corpus/reply is one byte, the number of descriptors beside the packet, and the packet. What begins
with `good-` is accepted, all else refused.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from .conftest import HERE, ROOT, SANITIZER_ENV, SANITIZERS, run

if TYPE_CHECKING:
    from pathlib import Path

CORPUS = ROOT / "tests/corpus/reply"
CLANG = shutil.which("clang") or shutil.which("clang-14") or ""
SOURCES = (ROOT / "fuzz/reply_fuzz.c", ROOT / "src/pam/reply.c", f"-I{ROOT}/src/pam")
#: refused by the module alone: Python's reader is for tests and tools and does not look at these
MODULE_ONLY = {"bad-reason-blank", "bad-reason-long", "bad-join-failed-retry", "bad-join-failed-alone"}


def test_reply_corpus__replayed_and_mutated(tmp_path: Path) -> None:
    """Good ones are good, bad ones are bad, and no bytes whatever make the parser step outside its packet."""
    samples = sorted(CORPUS.iterdir())
    flags = ("-std=c11", "-g", "-O1", "-Wall", "-Wextra", f"-fsanitize={SANITIZERS}")
    run("cc", *flags, "-o", tmp_path / "runner", HERE / "reply_runner.c", *SOURCES)
    told = run(tmp_path / "runner", "100000", *samples, env=SANITIZER_ENV).stdout
    verdicts = dict(line.split("\t") for line in told.splitlines())
    assert len(verdicts) == len(samples) >= 30
    for sample in samples:
        assert verdicts[str(sample)] == ("good" if sample.name.startswith("good-") else "bad"), sample.name


@pytest.mark.parametrize("sample", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_reply_corpus__python_agrees(sample: Path) -> None:
    """The Python reader of the same packets says the same, as far as it looks."""
    from slurm_adopt.wire.errors import RemoteProtocolError
    from slurm_adopt.wire.login_exchange import decode_reply

    data = sample.read_bytes()
    good = True
    try:
        good = len(decode_reply(data[1:]).joins) == data[0]
    except RemoteProtocolError:
        good = False
    if sample.name not in MODULE_ONLY:
        assert good == sample.name.startswith("good-")


@pytest.mark.skipif(not CLANG, reason="libFuzzer comes with clang")
def test_reply_corpus__libfuzzer(tmp_path: Path) -> None:
    """The libFuzzer target builds and finds nothing in a few seconds."""
    run(CLANG, "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-o", tmp_path / "fuzz", *SOURCES)
    (tmp_path / "new").mkdir()
    run(tmp_path / "fuzz", "-runs=200000", "-seed=1", "-max_len=4200", tmp_path / "new", CORPUS)
