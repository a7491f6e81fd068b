"""Work ends that takes too much of the processor."""

import signal
import time

import pytest

from textllm_adapters.documents.processor_time import TookTooLongError, within


def test_endless_work_is_ended_whatever_it_catches() -> None:
    def work() -> None:
        with within(0.05):
            while True:
                try:
                    sum(range(1000))
                except Exception:  # noqa: BLE001 - as libraries do it
                    continue

    begun = time.process_time()
    with pytest.raises(TookTooLongError):
        work()
    assert time.process_time() - begun < 5


def test_work_that_is_done_in_time_is_left_alone_and_so_is_what_follows() -> None:
    before = signal.getsignal(signal.SIGPROF)
    with within(30):
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGPROF) is before
