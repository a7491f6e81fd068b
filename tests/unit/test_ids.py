"""Ids are made many at a time, and never twice."""

import os

from textllm_core.ids import new_id


def test_no_id_comes_twice() -> None:
    made = [new_id("msg") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {len(each) for each in made} == {len("msg_") + 24}


def test_two_processes_do_not_make_the_same_ids() -> None:
    new_id("msg")  # of a block, the rest of which both would have
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, new_id("msg").encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() != new_id("msg")
    os.close(reading)
    os.close(writing)
