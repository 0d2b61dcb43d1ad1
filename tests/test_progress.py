import time

import pytest

from dermafuse import progress


def test_progress_goes_to_stderr_and_never_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = progress.Terminal()
    terminal.say("a line [with brackets]")
    with terminal.bar("Working", 10, "images") as advance:
        advance(10)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a line [with brackets]" in printed.err
    assert "Working" in printed.err


def test_a_log_gets_lines_with_count_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress.Terminal().bar("Working", 10, "images") as advance:
        advance(2)
        time.sleep(0.001)
        advance(2)
    printed = capsys.readouterr().err
    assert "Working: 4/10, " in printed
    assert "min left" in printed
