# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from slurm_adopt.system.tasks import child
from slurm_adopt.system.tasks.child import MAX_ANSWER, ChildFault, Worker, call_in_child, run_program
from slurm_adopt.system.tasks.task import DeadlineExceeded, all_of, run


def soon(seconds: float = 10) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _nothing_stays() -> object:
    while child.reap_children():  # of the tests before
        time.sleep(0.001)
    before = (children(), descriptors())
    yield
    # a child that the machine is too busy to end at once is reaped by one of the next calls
    until = time.monotonic() + 10
    while children() != before[0] and time.monotonic() < until:
        child.reap_children()
        time.sleep(0.01)
    # one that belongs to nobody any more may be closed meanwhile
    assert children() == before[0]
    assert descriptors() <= before[1]


def test_child__answers() -> None:
    assert run(call_in_child(lambda: b"x" * MAX_ANSWER, soon())) == b"x" * MAX_ANSWER


def test_child__has_its_pipe_and_nothing_else() -> None:
    with open("/dev/null", "rb"):
        listing = run(call_in_child(lambda: b" ".join(os.fsencode(fd) for fd in os.listdir("/proc/self/fd")), soon()))
    # the pipe, and the listing itself
    assert len(listing.split()) == 2


def _fails() -> bytes:
    raise ValueError


@pytest.mark.parametrize("function", [_fails, lambda: b"", lambda: b"x" * (MAX_ANSWER + 1), lambda: os._exit(0)])
def test_child__fails(function: object) -> None:
    with pytest.raises(ChildFault):
        run(call_in_child(function, soon()))  # type: ignore[arg-type]


def test_child__is_killed_at_the_deadline() -> None:
    def hang() -> bytes:
        time.sleep(60)
        return b"late"

    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        run(call_in_child(hang, soon(0.2)))
    assert time.monotonic() - started < 50
    with pytest.raises(DeadlineExceeded):
        run(call_in_child(hang, soon(0)))


def test_child__is_killed_when_its_task_is_given_up() -> None:
    before = children()
    task = call_in_child(lambda: time.sleep(60) or b"late", soon())  # type: ignore[func-returns-value]
    next(task)
    assert len(children()) == len(before) + 1
    task.close()


def test_child__several_side_by_side() -> None:
    tasks = [call_in_child(lambda n=n: b"%d" % n, soon()) for n in range(5)]  # type: ignore[misc]
    assert run(all_of(tasks, soon())) == [b"0", b"1", b"2", b"3", b"4"]


def test_worker__answers_with_its_socket_and_nothing_else() -> None:
    with open("/dev/null", "rb"):
        worker = Worker(lambda question: question + b" ".join(os.fsencode(fd) for fd in os.listdir("/proc/self/fd")))
        for question in (b"one ", b"two "):
            name, *descriptors = run(worker.ask(question, soon())).split()
            assert name == question.strip()
            assert len(descriptors) == 2
    assert worker.is_alive()
    worker.end()


@pytest.mark.parametrize("function", [lambda _: os._exit(0), lambda question: question.undefined])
def test_worker__that_fails(function: object) -> None:
    worker = Worker(function)  # type: ignore[arg-type]
    with pytest.raises(ChildFault):
        run(worker.ask(b"?", soon()))
    assert not worker.is_alive()
    with pytest.raises(ChildFault):
        run(worker.ask(b"?", soon()))
    worker.end()


def test_worker__is_killed_while_it_hangs() -> None:
    worker = Worker(lambda _: time.sleep(60) or b"late")  # type: ignore[func-returns-value]
    with pytest.raises(DeadlineExceeded):
        run(worker.ask(b"?", soon(0.2)))
    worker.end()


def test_worker__ends_by_its_alarm_if_nobody_kills_it() -> None:
    worker = Worker(lambda _: time.sleep(60) or b"late")  # type: ignore[func-returns-value]
    with pytest.raises(DeadlineExceeded):
        run(worker.ask(b"?", soon(0.1)))
    while worker.is_alive():
        time.sleep(0.01)
    worker.end()


def test_child__runs_a_program_that_has_its_output_and_nothing_else() -> None:
    with open("/dev/null", "rb"):
        listing = run(run_program(("/bin/ls", "/proc/self/fd"), {}, soon()))
    # input, output, errors, and the listing itself
    assert listing.split() == [b"0", b"1", b"2", b"3"]


def test_child__a_program_has_the_environment_that_it_is_given() -> None:
    assert run(run_program(("/usr/bin/env",), {"A": "b"}, soon())) == b"A=b\n"


def test_child__a_program_that_is_not_there_writes_nothing() -> None:
    assert run(run_program(("/nonexistent",), {}, soon())) == b""


def test_child__a_program_that_writes_too_much_is_not_listened_to() -> None:
    with pytest.raises(ChildFault):
        run(run_program(("/bin/cat", "/dev/zero"), {}, soon()))


def test_child__a_program_is_killed_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        run(run_program(("/bin/sleep", "600"), {}, soon(0.2)))
    with pytest.raises(DeadlineExceeded):
        run(run_program(("/bin/sleep", "600"), {}, soon(0)))
