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
    monkeypatch.setattr(progress, "_SECONDS_TO_JUDGE", 0.0)
    with progress.Terminal().bar("Working", 10, "images") as advance:
        advance(2)
        time.sleep(0.001)
        advance(2)
    printed = capsys.readouterr().err
    assert "Working: 4/10, " in printed
    assert " left" in printed


def test_no_time_left_is_said_before_it_can_be_known_and_then_it_is_the_rate_of_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress._Pace(10_000)
    pace.add(4_000)  # what an earlier run had done, after 20 s of loading
    for _ in range(4):
        now[0] += 0.5
        pace.add(1)
    assert pace.left is None  # two seconds say nothing
    for _ in range(200):  # 40 s at 10 a second, then 60 s at 50 a second: warm
        now[0] += 0.2
        pace.add(2)
    assert pace.left == pytest.approx((10_000 - pace.count) / 10, rel=0.05)
    for _ in range(120):
        now[0] += 0.5
        pace.add(25)
    assert pace.rate == pytest.approx(50, rel=0.05)
    assert progress._left(pace.left) == "52 s left"
    assert [progress._left(seconds) for seconds in (None, 300.0, 3 * 3600.0)] == ["", "5 min left", "3.0 h left"]


def test_a_bar_on_a_terminal_ends_at_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    stream = io.StringIO()
    terminal = progress.Terminal()
    terminal._console = progress.console(stream, force_terminal=True, width=100)
    with terminal.bar("Training", 18, "steps") as advance:
        advance(12)
    assert "12/12" in stream.getvalue()
