"""Work done aside: all of it is done, errors come through in order, nothing is left running."""

import errno
import os
import signal
import sys
import time

import psutil
import pytest

from replications.reporting import aside
from replications.reporting.aside import Aside

forks = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is done aside")


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
def test_all_is_done_by_the_end(tmp_path, children, processes):
    with Aside(raised, processes) as work:
        for name in range(23):
            if name == 20:  # the last ones wait for a process
                for _ in range(processes):
                    work.do(time.sleep, 0.2)
            work.do(lambda name=name: note(tmp_path, name))  # what does not pickle, too
    pids = [int((tmp_path / str(name)).read_text()) for name in range(23)]
    assert (set(pids) == {os.getpid()}) == (processes == 1)
    assert os.getpid() not in pids or processes == 1
    assert not children()


def test_with_one_processor_it_is_done_here_and_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(aside, "cpu_count", lambda: 1)
    with Aside(raised) as work:
        work.do(note, tmp_path, "name")
        assert (tmp_path / "name").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match="wrong"):
            work.do(fail, ValueError("wrong"))  # told at once


@forks
def test_no_more_at_a_time_than_there_are_processors(children):
    most = 0
    with Aside(raised, 2) as work:
        for _ in range(12):
            work.do(time.sleep, 0.3)
            most = max(most, len([p for p in children() if p.status() != psutil.STATUS_ZOMBIE]))
    assert most == 2


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_what_a_piece_raises_is_told_and_all_others_are_done(tmp_path, children, processes):
    told = []
    with Aside(lambda error, *arguments: told.append((error, arguments)), processes) as work:
        for name in range(9):
            work.do(note, tmp_path, name)
            if name % 4 == 0:
                work.do(fail, OSError(errno.ENOSPC, f"No space for {name}"), 0.05)
        work.do(fail, Unpicklable("wrong", 2))
    assert {path.name for path in tmp_path.iterdir()} == set("012345678")
    assert [(error.errno, error.strerror) for error, _ in told[:3]] == [(28, f"No space for {n}") for n in (0, 4, 8)]
    assert all(arguments[1:] == (0.05,) for _, arguments in told[:3])
    assert "wrong" in str(told[3][0]) and len(told) == 4 and not children()


def test_what_asks_may_fail_itself(tmp_path, children):
    with pytest.raises(KeyError, match="later"), Aside(raised, 2) as work:
        work.do(note, tmp_path, "done")
        raise KeyError("later")
    assert (tmp_path / "done").exists() and not children()


@forks
def test_only_the_piece_over_which_a_process_dies_is_lost(tmp_path, children):
    """The others of the same process are done once more."""
    told = []

    def die(name):
        os.kill(os.getpid(), signal.SIGKILL)

    with Aside(lambda error, *arguments: told.append((str(error), arguments)), 2) as work:
        for _ in range(2):
            work.do(time.sleep, 0.2)  # what comes now is done by one process
        for name in range(8):
            work.do(*((die, name) if name in (1, 6) else (note, tmp_path, name)))
    assert {path.name for path in tmp_path.iterdir()} == set("023457")
    assert told == [("a process ended with exit code -9", (1,)), ("a process ended with exit code -9", (6,))]
    assert not children()


@forks
def test_without_room_for_another_process_it_is_done_here(tmp_path, monkeypatch):
    def no_room(self):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(aside.multiprocessing.get_context("fork").Process, "start", no_room)
    with Aside(raised, 2) as work:
        work.do(note, tmp_path, "name")
    assert (tmp_path / "name").read_text() == str(os.getpid())


@forks
def test_an_interrupt_leaves_nothing_running(children):
    with pytest.raises(KeyboardInterrupt), Aside(2) as work:
        for _ in range(5):
            work.do(time.sleep, 600)
            if len(children()) == 2:
                raise KeyboardInterrupt
    assert not children()
