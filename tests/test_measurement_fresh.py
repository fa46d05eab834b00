"""Fresh processes of one host: what they share, what they do not, and that each ends when it must."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from test_measurement_lease import all_end

from replications.measurement.fresh import Host, ProcessEnded

ROOT = Path(__file__).parent.parent


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """A module that notes each import of it, with the process that imports it."""
    (tmp_path / "noted_module.py").write_text(
        "import os, pathlib\n"
        "with (pathlib.Path(__file__).parent / 'imports').open('a') as stream:\n"
        "    stream.write(f'{os.getpid()}\\n')\n"
        "state = []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "imports"


def use(value):
    import noted_module

    noted_module.state.append(value)
    return os.getpid(), os.getppid(), noted_module.state


def test_what_is_imported_is_shared_and_nothing_else(noted):
    with Host(["noted_module"]) as host:
        (first, above, state), (second, still_above, other_state) = host.call(use, 1), host.call(use, 2)
    assert noted.read_text() == f"{above}\n", "imported once, by the host"
    assert above == still_above and len({first, second, above, os.getpid()}) == 4
    assert (state, other_state) == ([1], [2]), "what one call leaves behind, the next does not see"


def test_without_imports_to_share_each_process_imports_for_itself(noted):
    with Host() as host:
        first, second = host.call(use, 1)[0], host.call(use, 2)[0]
    assert noted.read_text() == f"{first}\n{second}\n"


def test_a_module_that_cannot_be_imported_is_left_to_the_work(noted):
    with Host(["no_such_module", "noted_module"]) as host:
        _, above, _ = host.call(use, 1)
    assert noted.read_text() == f"{above}\n"


def end(how: int):
    os.kill(os.getpid(), how) if how else os._exit(3)


def end_the_host():
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def fail():
    raise ValueError("wrong")


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGKILL, -signal.SIGKILL), (0, 3)])
def test_a_process_that_dies_takes_no_other_with_it(how, exit_code):
    with Host() as host:
        before = host.call(os.getppid)
        with pytest.raises(ProcessEnded) as end_of_it:
            host.call(end, how)
        assert end_of_it.value.exit_code == exit_code
        assert host.call(os.getppid) == before, "the host lives"


def test_a_host_that_dies_fails_one_call_and_the_next_has_a_new_one():
    with Host() as host:
        before = host.call(os.getppid)
        with pytest.raises(ProcessEnded) as end_of_it:
            host.call(end_the_host)
        assert end_of_it.value.exit_code == -signal.SIGKILL
        assert host.call(os.getppid) != before


def test_an_exception_is_an_end_without_an_answer():
    with Host() as host, pytest.raises(ProcessEnded, match="exit code 1"):
        host.call(fail)


def test_the_host_has_one_thread():
    """A process forked beside another thread may inherit a lock that nobody opens again."""
    with Host() as host:
        above = host.call(os.getppid)
        assert psutil.Process(above).num_threads() == 1


def test_an_interrupted_call_leaves_no_process(tmp_path):
    processes = []

    def look_and_interrupt(*_):
        processes.extend(map(psutil.Process, map(int, (tmp_path / "ids").read_text().split())))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, look_and_interrupt)
    try:
        with Host() as host:
            with pytest.raises(KeyboardInterrupt):
                host.call(signal_and_wait, os.getpid(), tmp_path / "ids")
            assert len(processes) == 2 and all_end(*processes)
            assert host.call(os.getppid) != processes[0].pid, "the next call is a new host's"
    finally:
        signal.signal(signal.SIGUSR1, before)


def signal_and_wait(asker: int, ids: Path):
    ids.write_text(f"{os.getppid()} {os.getpid()}")
    os.kill(asker, signal.SIGUSR1)
    signal.pause()


def test_a_killed_asker_leaves_no_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, time
            from replications.measurement.fresh import Host

            def work():
                print(os.getpid(), os.getppid(), flush=True)
                time.sleep(600)

            if __name__ == "__main__":
                with Host() as host:
                    host.call(work)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asker = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    child, host = map(psutil.Process, map(int, asker.stdout.readline().split()))
    server = host.parent()
    asker.kill()
    asker.wait()
    assert all_end(child, host, server)
