"""The benchmarks of a turn run, and count no answer that is none."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.doors import BASES
from benchmarks.gateways import FIGURES, POSTGRES
from benchmarks.load import Question, load, post
from benchmarks.upstream import upstream

ROOT = Path(__file__).parents[2]
# As short as can be: what is measured is nobody's concern here.
SHORT = ("--rounds", "1", "--seconds", "0.1", "--connections", "2", "--only", POSTGRES)


def test_the_table_has_every_figure_of_turns_on_postgres() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateways", *SHORT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    figures = {figure: values for figure, *values in rows}
    assert figures.keys() >= FIGURES.keys()
    assert all(value[0].isdigit() for value in figures["/chat a second"]), rows


def test_each_door_is_measured_beside_chat() -> None:
    short = ("--rounds", "1", "--seconds", "0.1", "--connections", "2")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.doors", *short], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| /")]
    assert [name for name, *_ in rows] == list(BASES)
    assert all(len(values) == 8 for _, *values in rows)


def test_an_answer_that_is_no_reply_is_not_counted() -> None:
    with upstream() as provider:
        question = Question([post("/v1/nothing", b"{}")], text=b"word", end=b"}")
        with pytest.raises(RuntimeError, match="was answered 404"):
            asyncio.run(load(provider.port, question, connections=1, seconds=0.1))
