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


def fail(error, after=0.0):
    time.sleep(after)
    raise error


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_all_is_done_by_the_end(tmp_path, children, processes):
    with Aside(processes) as work:
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
    with Aside() as work:
        work.do(note, tmp_path, "name")
        assert (tmp_path / "name").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match="wrong"):
            work.do(fail, ValueError("wrong"))


@forks
def test_no_more_at_a_time_than_there_are_processors(children):
    most = 0
    with Aside(2) as work:
        for _ in range(12):
            work.do(time.sleep, 0.3)
            most = max(most, len([p for p in children() if p.status() != psutil.STATUS_ZOMBIE]))
    assert most == 2


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_error_of_the_piece_asked_for_first_is_raised(tmp_path, children, processes):
    """Though a later one fails sooner, and what asks fails too."""
    with pytest.raises(OSError, match="No space") as error, Aside(processes) as work:
        work.do(note, tmp_path, "done")
        work.do(fail, OSError(errno.ENOSPC, "No space left"), 0.6)
        work.do(fail, ValueError("a later one"))
        time.sleep(0.2)
        raise KeyError("later still")
    assert (error.value.errno, error.value.strerror) == (errno.ENOSPC, "No space left")
    assert (tmp_path / "done").exists() and not children()


@forks
def test_an_error_stops_what_comes_after_it(tmp_path):
    with pytest.raises(ValueError, match="first"), Aside(2) as work:
        work.do(fail, ValueError("first"))
        for name in range(1000):
            work.do(note, tmp_path, name)
            work.do(fail, KeyError("later"), 0.01)
    assert len(list(tmp_path.iterdir())) < 500


@forks
def test_an_error_says_where_it_was_raised():
    with pytest.raises(ValueError, match="wrong") as error, Aside(2) as work:
        work.do(fail, ValueError("wrong"))
    assert any("in fail" in line for line in error.value.__notes__)


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@forks
def test_an_error_that_does_not_pickle_comes_in_words():
    with pytest.raises(RuntimeError, match="Unpicklable: wrong"), Aside(2) as work:
        work.do(fail, Unpicklable("wrong", 2))


@forks
def test_a_process_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="exit code -9"), Aside(2) as work:
        work.do(lambda: os.kill(os.getpid(), signal.SIGKILL))


@forks
def test_an_interrupt_leaves_nothing_running(children):
    with pytest.raises(KeyboardInterrupt), Aside(2) as work:
        for _ in range(5):
            work.do(time.sleep, 600)
            if len(children()) == 2:
                raise KeyboardInterrupt
    assert not children()
