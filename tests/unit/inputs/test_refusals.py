"""Files that are refused: each with file, line, field, value and what is allowed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from gesso.csv_input import InputError
from gesso.profile_table import read_profile
from gesso_simulator.inputs.prompts import read_prompts
from gesso_simulator.inputs.quality_table import measured_table, read_quality_table
from gesso_simulator.inputs.trace import read_trace

Read = Callable[[Path], object]


def fifty(path: Path) -> object:
    return read_profile(path, 50)


TRACE = "t_s,count\n"
LOG = "prompt_row,prompt,similarity\n"
TABLE = "prompt_row,similarity,q0,q5\n"
PROFILE = "skipped_steps,batch,latency_s\n"

CASES: list[tuple[Read, str, int | None, str]] = [
    (read_trace, "", None, "empty is not allowed: a header line t_s,count"),
    (read_trace, TRACE, None, "rows: 0 is not allowed: 2 at least"),
    (read_trace, TRACE + "0,3\n", None, "rows: 1 is not allowed: 2 at least"),
    (read_trace, TRACE + "0,0\n60,0\n", None, "count: 0 in every row is not allowed"),
    (read_trace, TRACE + "0,3\n60,-1\n", 3, "count: -1 is not allowed: a whole number, 0 to"),
    (read_trace, TRACE + "0,3\n60,nan\n", 3, "count: nan is not allowed: a whole number"),
    (read_trace, TRACE + "0,3\n60,inf\n", 3, "count: inf is not allowed"),
    (read_trace, TRACE + "0,3\n60,\n", 3, "count: empty is not allowed"),
    (read_trace, TRACE + "0,2.5\n60,3\n", 2, "count: 2.5 is not allowed: a whole number"),
    (read_trace, TRACE + "0,1_0\n60,3\n", 2, "count: 1_0 is not allowed"),
    (read_trace, TRACE + "0,19999999\n60,2\n", 3, "count: 2 is not allowed: at most 20000000"),
    (read_trace, TRACE + "0,3\n0,4\n", 3, "t_s: 0 is not allowed: ascending: above 0"),
    (read_trace, TRACE + "60,3\n\n30,4\n", 4, "t_s: 30 is not allowed: ascending: above 60"),
    (read_trace, TRACE + "NaN,3\n1,3\n", 2, "t_s: NaN is not allowed: seconds, a finite number"),
    (read_trace, "t_s,count,rate\n0,1,2\n", 1, "column: rate is not allowed: t_s,count"),
    (read_trace, "t_s\n0\n", 1, "column: count is missing: needed are t_s,count"),
    (read_trace, "t_s,count,count\n0,1,1\n", 1, "column: count twice is not allowed"),
    (read_trace, TRACE + "0,3,4\n", 2, "row: 3 cells are not allowed: 2"),
    (read_trace, TRACE + '0,"3\n', 2, "is not CSV"),
    (read_prompts, LOG, None, "rows: 0 is not allowed: one prompt at least"),
    (read_prompts, LOG + "1,cat,1.2\n", 2, "similarity: 1.2 is not allowed: a number, -1 to 1"),
    (read_prompts, LOG + "1,cat,-1.01\n", 2, "similarity: -1.01 is not allowed"),
    (read_prompts, LOG + "1,cat,\n", 2, "similarity: empty is not allowed"),
    (read_prompts, LOG + "1, ,0.5\n", 2, "prompt: empty is not allowed: text"),
    (read_prompts, LOG + "-1,cat,0.5\n", 2, "prompt_row: -1 is not allowed: a whole number, 0"),
    (read_prompts, LOG + "1,a,0\n1,b,0\n", 3, "prompt_row: 1 is not allowed: each once; line 2"),
    (read_prompts, 'prompt_row,prompt,user\n1,"a\nb",u\n', 1, "column: user is not allowed"),
    (read_prompts, LOG + '1,"a\nb",0\n2,c,9\n', 4, "similarity: 9 is not allowed"),
    (read_quality_table, TABLE, None, "rows: 0 is not allowed"),
    (read_quality_table, TABLE + "1,0.5,1,\n", 2, "q5: empty is not allowed: relative quality"),
    (read_quality_table, TABLE + "1,0.5,1,1.01\n", 2, "q5: 1.01 is not allowed: relative quality"),
    (read_quality_table, TABLE + "1,0.5,1,-0.1\n", 2, "q5: -0.1 is not allowed"),
    (read_quality_table, TABLE + "1,0.5,1,nan\n", 2, "q5: nan is not allowed"),
    (read_quality_table, TABLE + "1,2,1,1\n", 2, "similarity: 2 is not allowed: a number, -1 to"),
    (read_quality_table, TABLE + "1,0,1,1\n1,0,1,1\n", 3, "prompt_row: 1 is not allowed: each"),
    (read_quality_table, "prompt_row,similarity,q5\n", 1, "column: q0 is missing"),
    (read_quality_table, "prompt_row,similarity,q0\n1,1,1\n", 1, "column: q0 alone is not"),
    (read_quality_table, "prompt_row,similarity,q0,q05\n", 1, "column: q05 is not allowed"),
    (read_quality_table, "prompt_row,similarity,q0,q5,x\n", 1, "column: x is not allowed"),
    (read_quality_table, TABLE[:-1] + ",split\n1,0,1,1,test\n", 2, "split: test is not allowed"),
    (fifty, PROFILE, None, "batch: none is not allowed"),
    (fifty, PROFILE + "50,1,2\n", 2, "skipped_steps: 50 is not allowed: a whole number, 0 to 49"),
    (fifty, PROFILE + "-5,1,2\n", 2, "skipped_steps: -5 is not allowed"),
    (fifty, PROFILE + "2.5,1,2\n", 2, "skipped_steps: 2.5 is not allowed"),
    (fifty, PROFILE + "0,1,2\n0,1,3\n", 3, "skipped_steps: 0 is not allowed: once for each batch"),
    (fifty, PROFILE + "0,0,2\n", 2, "batch: 0 is not allowed: a whole number, 1 to 64"),
    (fifty, PROFILE + "0,1,0\n", 2, "latency_s: 0 is not allowed: seconds, above 0"),
    (fifty, PROFILE + "0,1,nan\n", 2, "latency_s: nan is not allowed"),
    (fifty, PROFILE + "0,2,4\n5,2,3\n", None, "batch: [2] is not allowed: batch 1 is among them"),
    (fifty, PROFILE + "0,1,4\n0,2,6\n", None, "skipped_steps: [0] is not allowed: two K at least"),
    (
        fifty,
        PROFILE + "0,1,2\n25,1,4\n",
        None,
        "latency_s: -0.08 s a step at batch 1 is not allowed",
    ),
    (
        fifty,
        PROFILE[:-1] + ",p95_s\n0,1,4,3.9\n",
        2,
        "p95_s: 3.9 is not allowed: seconds, at least",
    ),
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("read", "text", "line", "problem"), CASES)
def test_refused(
    tmp_path: Path, read: Read, text: str, line: int | None, problem: str, packed: bool
) -> None:
    path = tmp_path / "input.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.raises(InputError) as caught:
        read(path)
    where = f"{path}: line {line}: " if line is not None else f"{path}: "
    assert str(caught.value).startswith(where + problem)
    assert caught.value.line == line


@pytest.mark.parametrize("read", [read_trace, read_prompts, read_quality_table, fifty])
def test_what_is_no_text_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "input.csv"
    path.write_bytes(b"t_s,count\n0,\xff\n")
    with pytest.raises(InputError, match=r"line 2: is not UTF-8 text \(byte 12\)"):
        read(path)
    path.write_bytes(gzip.compress(b"t_s,count\n0,1\n1,1\n")[:-9])
    with pytest.raises(InputError, match="is broken gzip"):
        read(path)
    path.write_bytes(b"t_s,count\n\0,1\n")
    with pytest.raises(InputError):
        read(path)
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.csv")


def test_a_level_beyond_the_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("prompt_row,similarity,q0,q30\n1,0.5,1,0.9\n")
    assert read_quality_table(path).ladder == (0, 30)
    with pytest.raises(InputError, match="line 1: column: q30 is not allowed: K below 30"):
        read_quality_table(path, steps=30)


def test_an_absent_measured_table_says_where_it_should_lie(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"absent\.csv\.gz: no such file: the measured quality table"
    ):
        measured_table(tmp_path / "absent.csv.gz")


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,count\n0," + "9x" * 500 + "\n")
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert len(str(caught.value)) < 250
