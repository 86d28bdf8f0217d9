"""The reader of the pages itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.docs.markdown import BadPage, Block, Command, blocks, commands, shows
from tests.docs.pages import Page


def page(folder: Path, text: str) -> Page:
    return Page(dedent(text), folder)


def test_blocks_are_read_with_their_marks() -> None:
    text = """\
    # Title
    <!-- test: file a/b.py -->
    ```python
    x = 1

    ```
    - in a list:

      ~~~ sh title
      $ ls
      ~~~
    <!-- test: skip no server -->
    ````
    ```
    ````
    """
    assert blocks(dedent(text)) == [
        Block(4, "python", "x = 1\n\n", "file", "a/b.py"),
        Block(10, "sh", "$ ls\n"),
        Block(14, "", "```\n", "skip", "no server"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n",
        "<!-- test: skip -->\n```\n```\n",
        "<!-- test: file -->\n```\n```\n",
        "<!-- test: output all -->\n```\n```\n",
        "<!-- test: run -->\n```\n```\n",
        "<!-- test: output -->\ntext\n```\n```\n",
        "<!-- test: output -->\n",
        "text <!-- test: output -->\n```\n```\n",
    ],
)
def test_bad_marks_are_refused(text: str) -> None:
    with pytest.raises(BadPage):
        blocks(text)


def test_commands_are_read_with_their_outputs() -> None:
    text = "$ python a.py \\\n  --fast\none\ntwo\n$ make test\n"
    assert commands(Block(7, "console", text)) == [
        Command(7, "python a.py   --fast", "one\ntwo\n"),
        Command(11, "make test", ""),
    ]
    with pytest.raises(BadPage):
        commands(Block(1, "console", "ls\n"))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("a\nb\n", "a  \nb\n"),
        ("took … s\n", "took 1.5 s\n"),
        ("a\n…\nz\n", "a\nb\nc\nz\n"),
        ("a\n…\nz\n", "a\nz\n"),
        ("…\n", ""),
        ("1 * (2)\n", "1 * (2)\n"),
    ],
)
def test_output_that_is_shown(expected: str, actual: str) -> None:
    assert shows(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("a\n", "a\nb\n"),
        ("a\n", ""),
        ("a … c\n", "a b\n"),
        ("a … c\n", "a \n c\n"),
        ("1 * (2)\n", "1 ** 2\n"),
        (" a\n", "a\n"),
    ],
)
def test_output_that_is_not_shown(expected: str, actual: str) -> None:
    assert not shows(expected, actual)


PROGRAM = """\
```python
x = 1
print("one")
```
<!-- test: output -->
```
one
```
```python
for n in range(2):
    print(x + n)
```
<!-- test: output -->
```
1
2
```
"""


def test_the_blocks_are_one_program(tmp_path: Path) -> None:
    page(tmp_path, PROGRAM).run_program()
    with pytest.raises(AssertionError, match="line 15"):
        page(tmp_path, PROGRAM.replace("1\n2\n", "1\n3\n")).run_program()


def test_a_traceback_has_the_line_of_the_page(tmp_path: Path) -> None:
    failing = page(tmp_path, "# Title\n\n```python\nx = 1\n```\n\n```python\nx / 0\n```\n")
    with pytest.raises(AssertionError, match=r"page\.py\", line 8"):
        failing.run_program()


def test_commands_run_on_the_files(tmp_path: Path) -> None:
    text = """\
    <!-- test: file greet.py -->
    ```python
    import os
    print("hello", os.environ["NAME"])
    ```
    ```console
    $ pip install greetings
    Collecting greetings
    $ NAME=you python greet.py
    hello you
    ```
    <!-- test: output -->
    ```
    hello …
    ```
    """
    good = page(tmp_path, text)
    good.write()
    good.run_commands()
    with pytest.raises(AssertionError, match="line 9"):
        page(tmp_path, text.replace("hello you", "hello me")).run_commands()


@pytest.mark.parametrize("command", ["rm -rf x", "python -m tests.nothing", ""])
def test_other_commands_are_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(BadPage):
        page(tmp_path, f"```sh\n$ {command}\n```\n").run_commands()


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.pages.TIMEOUT", 1)
    hanging = page(tmp_path, "```python\nimport time\ntime.sleep(60)\n```\n")
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.run_program()


@pytest.mark.parametrize("name", ["../a.py", "/a.py"])
def test_files_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadPage):
        page(tmp_path, f"<!-- test: file {name} -->\n```\n```\n").write()
