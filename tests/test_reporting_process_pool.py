"""The process pool: all calls run, errors arrive in order of submission, no child is left running."""

import errno
import os
import signal
import sys
import time

import psutil
import pytest

from replications.reporting import process_pool
from replications.reporting.process_pool import ForkPool

forks = pytest.mark.skipif(sys.platform != "linux", reason="the pool forks on Linux only")


@pytest.fixture
def children():
    """Processes that this test has started and that are still there, when called."""
    before = psutil.Process().children()
    return lambda: [process for process in psutil.Process().children() if process not in before]


def note(folder, name):
    (folder / str(name)).write_text(str(os.getpid()))


def raised(error, *arguments):
    raise error


def fail(error, after=0.0):
    time.sleep(after)
    raise error


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_all_calls_have_run_at_the_end(tmp_path, children, processes):
    with ForkPool(raised, processes) as pool:
        for name in range(23):
            if name == 20:  # the last ones wait for a process
                for _ in range(processes):
                    pool.submit(time.sleep, 0.2)
            pool.submit(lambda name=name: note(tmp_path, name))  # lambdas do not pickle
    pids = [int((tmp_path / str(name)).read_text()) for name in range(23)]
    assert (set(pids) == {os.getpid()}) == (processes == 1)
    assert os.getpid() not in pids or processes == 1
    assert not children()


def test_with_one_processor_calls_run_here_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(process_pool, "cpu_count", lambda: 1)
    with ForkPool(raised) as pool:
        pool.submit(note, tmp_path, "name")
        assert (tmp_path / "name").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match="wrong"):
            pool.submit(fail, ValueError("wrong"))  # raised at once


@forks
def test_no_more_at_a_time_than_there_are_processors(children):
    most = 0
    with ForkPool(raised, 2) as pool:
        for _ in range(12):
            pool.submit(time.sleep, 0.3)
            most = max(most, len([p for p in children() if p.status() != psutil.STATUS_ZOMBIE]))
    assert most == 2


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_an_error_is_reported_and_all_other_calls_run(tmp_path, children, processes):
    errors = []
    with ForkPool(lambda error, *arguments: errors.append((error, arguments)), processes) as pool:
        for name in range(9):
            pool.submit(note, tmp_path, name)
            if name % 4 == 0:
                pool.submit(fail, OSError(errno.ENOSPC, f"No space for {name}"), 0.05)
        pool.submit(fail, Unpicklable("wrong", 2))
    assert {path.name for path in tmp_path.iterdir()} == set("012345678")
    assert [(error.errno, error.strerror) for error, _ in errors[:3]] == [(28, f"No space for {n}") for n in (0, 4, 8)]
    assert all(arguments[1:] == (0.05,) for _, arguments in errors[:3])
    assert "wrong" in str(errors[3][0]) and len(errors) == 4 and not children()


def test_an_error_in_the_submitting_block_is_raised(tmp_path, children):
    with pytest.raises(KeyError, match="later"), ForkPool(raised, 2) as pool:
        pool.submit(note, tmp_path, "done")
        raise KeyError("later")
    assert (tmp_path / "done").exists() and not children()


@forks
def test_only_the_call_that_kills_its_process_is_lost(tmp_path, children):
    """The other calls of the same process run again."""
    errors = []

    def die(name):
        os.kill(os.getpid(), signal.SIGKILL)

    with ForkPool(lambda error, *arguments: errors.append((str(error), arguments)), 2) as pool:
        for _ in range(2):
            pool.submit(time.sleep, 0.2)  # the next calls share one process
        for name in range(8):
            pool.submit(*((die, name) if name in (1, 6) else (note, tmp_path, name)))
    assert {path.name for path in tmp_path.iterdir()} == set("023457")
    assert errors == [("a process ended with exit code -9", (1,)), ("a process ended with exit code -9", (6,))]
    assert not children()


@forks
def test_without_room_for_another_process_calls_run_here(tmp_path, monkeypatch):
    def no_room(self):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(process_pool.multiprocessing.get_context("fork").Process, "start", no_room)
    with ForkPool(raised, 2) as pool:
        pool.submit(note, tmp_path, "name")
    assert (tmp_path / "name").read_text() == str(os.getpid())


@forks
def test_an_interrupt_leaves_nothing_running(children):
    with pytest.raises(KeyboardInterrupt), ForkPool(2) as pool:
        for _ in range(5):
            pool.submit(time.sleep, 600)
            if len(children()) == 2:
                raise KeyboardInterrupt
    assert not children()
