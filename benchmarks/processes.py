"""What processes cost, and which cores they may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MB = 1_000_000


def own_memory(process: psutil.Process) -> int:
    """Bytes that the process alone has; none once it has ended."""
    try:
        return int(process.memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
        return 0


def processor_s(process: psutil.Process) -> float:
    """Seconds of processor time, user and system, of a process and all its children, those that have ended included."""
    try:
        own, children = process.cpu_times(), process.children()
    except psutil.NoSuchProcess:  # it has just ended, and counts for its parent from now on
        return 0.0
    spent = own.user + own.system + own.children_user + own.children_system
    return float(spent) + sum(processor_s(child) for child in children)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes started in the block use these cores alone; elsewhere than on Linux, all."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
