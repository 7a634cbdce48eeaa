"""Boards over ssh and adb: copy files, run programs, fetch files and clean up."""

import os
from pathlib import Path

import boards
import pytest

from tcc.compiler.support import board
from tcc.compiler.support.board import BoardLink
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool

LINKS = {"ssh": (boards.make_ssh_folder, "board", False), "adb": (boards.make_fake_adb, None, True)}
BYTES = bytes(range(256)) + b"\r\n\n\r"


def connect_board(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> BoardLink:
    create_program, host, adb = LINKS[name]
    monkeypatch.setenv("PATH", f"{create_program(folder)}:{os.environ['PATH']}")
    board_link = board.select_link(host, adb)
    assert board_link
    return board_link


@pytest.fixture(params=LINKS)
def link(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BoardLink:
    return connect_board(tmp_path, monkeypatch, request.param)


def test_files_survive_the_round_trip(link: BoardLink) -> None:
    with board.open_board(link) as board_session:
        path = board_session.send("a file's name", BYTES)
        assert path == f"{board_session.folder}/a file's name"
        assert board_session.fetch("a file's name") == BYTES
        program = board_session.send(
            "program", b'#!/bin/sh\ncat "$1"; pwd; exit 7\n', executable=True
        )
        completed = board_session.execute([program, path], 60)
        assert completed.code == 7
        assert completed.out == BYTES + f"{board_session.folder}\n".encode()
        assert Path(board_session.folder).stat().st_mode & 0o077 == 0
    assert not Path(board_session.folder).exists()


def test_exit_code_and_stderr_are_returned(link: BoardLink) -> None:
    with board.open_board(link) as board_session:
        completed = board_session.execute(["sh", "-c", "echo output; echo wrong >&2; exit 3"], 60)
        assert (completed.code, completed.out, completed.err) == (3, b"output\n", b"wrong\n")


def test_hanging_program_is_stopped(link: BoardLink) -> None:
    with (
        board.open_board(link) as board_session,
        pytest.raises(UserError, match="did not end within 1 s"),
    ):
        board_session.execute(["sleep", "5"], 1)


def test_missing_file_on_the_board_is_reported(link: BoardLink) -> None:
    with board.open_board(link) as board_session, pytest.raises(UserError, match="E0658"):
        board_session.fetch("nothing")


@pytest.mark.parametrize("answer", ["", "echo hello", "echo error: no devices >&2; exit 1"])
def test_unreachable_board_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    boards.write_program(tmp_path / "bin", "adb", f"#!/bin/sh\n{answer}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    board_link = board.select_link(None, True)
    assert board_link
    expected_text = "no devices" if "no devices" in answer else "does not answer"
    with (
        pytest.raises(UserError, match=f"E0658(.|\n)*{expected_text}"),
        board.open_board(board_link),
    ):
        pass


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "", "a b", "a;b", "$(b)"])
def test_invalid_host_names_are_refused(host: str) -> None:
    with pytest.raises(UserError, match="E0601"):
        board.select_link(host, False)


def test_ssh_and_adb_together_are_refused() -> None:
    with pytest.raises(UserError, match="E0601"):
        board.select_link("board", True)
    assert board.select_link(None, False) is None


def test_missing_command_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingTool, match="apt-get install adb"):
        board.select_link(None, True)
    with pytest.raises(MissingTool, match="apt-get install openssh-client"):
        board.select_link("board", False)
