"""The clocks: what interval they give, what they refuse, and that none ever steps back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.clock import (
    Clock,
    ClockFile,
    ClockState,
    DeclaredClock,
    FileClock,
    KernelClock,
    KernelEstimate,
    boottime_ns,
    open_clock,
)
from k2store.clock.kernel import REFRESH_NS, ask_kernel
from k2store.errors import ClockUncertain, Rejected

NOON_NS = 1_780_000_000_000_000_000 // (86_400 * 10**9) * 86_400 * 10**9 + 43_200 * 10**9
GROWTH_NS = 50_000  # 500 ppm of the 100 ms between two questions to the kernel


class HostTime:
    """The host's clock, which a test sets."""

    def __init__(self, now_ns: int = NOON_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


class Kernel:
    """A kernel whose estimate a test sets; it counts the questions."""

    def __init__(self, estimate: KernelEstimate) -> None:
        self.estimate = estimate
        self.asked = 0

    def __call__(self) -> KernelEstimate:
        self.asked += 1
        return self.estimate


def file_clock(folder: Path, host: HostTime, bound_ns: int = 1_000) -> tuple[ClockFile, FileClock]:
    """A clock file and a clock that follows it."""
    path = folder / "clock"
    writer = ClockFile.create(path, bound_ns, realtime_ns=host)
    return writer, FileClock(path, realtime_ns=host)


def test_the_declared_bound_lies_around_the_hosts_time() -> None:
    """Half of the bound on each side, and the source says that it is assumed."""
    clock = DeclaredClock(500_000, realtime_ns=HostTime())
    assert clock.read() == (NOON_NS - 250_000, NOON_NS + 250_000)
    assert clock.now().width_ns == 500_000
    source = clock.source
    assert (source.name, source.assumed, source.bound_ns) == ("declared", True, 500_000)
    assert source.state is ClockState.OK


def test_an_odd_bound_is_never_made_smaller() -> None:
    """Rounding to whole nanoseconds only widens the interval."""
    assert DeclaredClock(3, realtime_ns=HostTime()).now().width_ns == 4


def test_a_host_set_back_makes_the_declared_clock_stand_still_and_say_so() -> None:
    """Both edges wait until the host has caught up."""
    host = HostTime()
    clock = DeclaredClock(1_000, realtime_ns=host)
    before = clock.read()
    host.now_ns -= 5_000
    assert clock.read() == before
    held = clock.source
    assert held.state is ClockState.HELD
    assert "5000 ns behind" in held.detail
    host.now_ns += 6_000
    assert clock.read() == (before[0] + 1_000, before[1] + 1_000)
    caught_up = clock.source
    assert caught_up.state is ClockState.OK


def kernel_clock(host: HostTime, folder: Path) -> Clock:
    """A kernel clock with a steady estimate."""
    return KernelClock(ask=Kernel(KernelEstimate(7_000, 0, synchronised=True)), realtime_ns=host)


BUILDERS: dict[str, Callable[[HostTime, Path], Clock]] = {
    "declared": lambda host, folder: DeclaredClock(1_000, realtime_ns=host),
    "kernel": kernel_clock,
    "file": lambda host, folder: file_clock(folder, host)[1],
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("steps_ns", [[5, -3, 2, -900, 899, 40], [-(10**9), 10**9 + 1, -1, 0]])
def test_no_clock_steps_back_or_forgets_the_hosts_time(
    name: str, steps_ns: list[int], tmp_path: Path
) -> None:
    """Edges only grow, and hi is never below what the host shows."""
    host = HostTime()
    clock = BUILDERS[name](host, tmp_path)
    before = clock.read()
    for step_ns in steps_ns:
        host.now_ns += step_ns
        lo_ns, hi_ns = clock.read()
        assert lo_ns >= before[0]
        assert hi_ns >= max(before[1], host.now_ns)
        before = (lo_ns, hi_ns)


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6)), max_size=30))
def test_a_kernel_clock_of_changing_quality_never_steps_back(
    moves: list[tuple[int, int]],
) -> None:
    """Edges only grow although the error shrinks and grows, and contain the latest reading."""
    host = HostTime()
    kernel = Kernel(KernelEstimate(0, 0, synchronised=True))
    clock = KernelClock(ask=kernel, realtime_ns=host)
    latest_ns, before = 0, (0, 0)
    for step_ns, error_ns in moves:
        host.now_ns += step_ns + REFRESH_NS // 3
        latest_ns = max(latest_ns, host.now_ns)
        kernel.estimate = KernelEstimate(error_ns, 0, synchronised=True)
        lo_ns, hi_ns = clock.read()
        assert lo_ns >= before[0]
        assert hi_ns >= before[1]
        assert lo_ns <= latest_ns <= hi_ns
        before = (lo_ns, hi_ns)


def test_the_kernels_error_is_asked_now_and_then_and_widened_in_between() -> None:
    """One question in 100 ms; until the next one the error may grow at 500 ppm."""
    host = HostTime()
    kernel = Kernel(KernelEstimate(200_000, 3_000, synchronised=True))
    clock = KernelClock(ask=kernel, realtime_ns=host)
    for _ in range(5):
        assert clock.read() == (
            host.now_ns - 200_000 - GROWTH_NS,
            host.now_ns + 200_000 + GROWTH_NS,
        )
        host.now_ns += REFRESH_NS // 5
    assert kernel.asked == 1
    clock.read()
    assert kernel.asked == 2
    source = clock.source
    assert (source.name, source.assumed) == ("kernel", False)
    assert source.bound_ns == 2 * (200_000 + GROWTH_NS)
    assert "200000 ns" in source.detail


def test_an_undisciplined_kernel_clock_refuses_and_names_the_setting() -> None:
    """Without a daemon there is no bound: ClockUncertain tells what can be done."""
    kernel = Kernel(KernelEstimate(16 * 10**9, 16 * 10**9, synchronised=False))
    host = HostTime()
    clock = KernelClock(ask=kernel, realtime_ns=host)
    with pytest.raises(ClockUncertain, match=r'chrony.*clock\.source = "declared"') as caught:
        clock.read()
    assert caught.value.retry_after_s == 0.1
    source = clock.source
    assert source.state is ClockState.UNSYNCHRONISED
    assert source.bound_ns is None
    kernel.estimate = KernelEstimate(1_000, 0, synchronised=True)
    host.now_ns += REFRESH_NS
    assert clock.now().width_ns == 2 * (1_000 + GROWTH_NS)


def test_a_leap_second_widens_the_interval() -> None:
    """Around an inserted second, and while it lasts, a second of doubt is added on each side."""
    midnight_ns = NOON_NS + 43_200 * 10**9
    host = HostTime(midnight_ns - 10**9)
    kernel = Kernel(KernelEstimate(0, 0, synchronised=True, leap_pending=True))
    clock = KernelClock(ask=kernel, realtime_ns=host)
    assert clock.now().width_ns > 2 * 10**9
    kernel.estimate = KernelEstimate(0, 0, synchronised=True, leap_now=True)
    host.now_ns = midnight_ns + REFRESH_NS
    assert clock.now().width_ns > 2 * 10**9
    at_noon = KernelClock(
        ask=Kernel(KernelEstimate(0, 0, synchronised=True, leap_pending=True)),
        realtime_ns=HostTime(),
    )
    assert at_noon.now().width_ns == 2 * GROWTH_NS


def test_the_real_kernel_answers() -> None:
    """adjtimex is called with the right layout: plausible figures, whatever the host's state."""
    estimate = ask_kernel()
    assert 0 <= estimate.error_max_ns <= 3_600 * 10**9
    assert 0 <= estimate.error_ns <= 3_600 * 10**9
    assert not (estimate.leap_now and estimate.leap_pending)


def test_a_new_clock_file_shows_the_hosts_time(tmp_path: Path) -> None:
    """Before anybody makes it wrong, the clock is right and shows its bound."""
    host = HostTime()
    _, clock = file_clock(tmp_path, host, bound_ns=600)
    assert clock.read() == (NOON_NS - 300, NOON_NS + 300)
    host.now_ns += 10**9
    assert clock.read() == (NOON_NS + 10**9 - 300, NOON_NS + 10**9 + 300)
    assert clock.source.name == "file"
    assert clock.source.assumed


def test_a_file_makes_a_clock_jump_drift_widen_and_freeze(tmp_path: Path) -> None:
    """Each fault acts from the moment it is written, and the others go on."""
    host = HostTime()
    writer, clock = file_clock(tmp_path, host, bound_ns=600)
    writer.change(offset_ns=7_000)
    assert clock.now().lo_ns == NOON_NS + 7_000 - 300
    writer.change(drift_ppm=100)
    host.now_ns += 10**9
    assert clock.now().lo_ns == host.now_ns + 7_000 + 100_000 - 300
    writer.change(bound_ns=6_000)
    assert clock.now().lo_ns == host.now_ns + 7_000 + 100_000 - 300  # lo does not step back
    host.now_ns += 10_000
    assert clock.now().width_ns == 6_000
    frozen_at = clock.read()
    writer.change(frozen=True)
    host.now_ns += 10**9
    assert clock.read() == frozen_at
    assert "frozen" in clock.source.detail
    writer.change(frozen=False)
    assert clock.read() == frozen_at
    writer.change(offset_ns=0, drift_ppm=0)
    host.now_ns += 10**9
    assert clock.now().hi_ns == host.now_ns + 3_000


def test_a_file_that_steps_back_shows_it_only_to_a_new_process(tmp_path: Path) -> None:
    """The running clock stands still and says so; the next one starts in the past."""
    host = HostTime()
    writer, clock = file_clock(tmp_path, host)
    before = clock.read()
    writer.change(offset_ns=-(10**9))
    assert clock.read() == before
    assert clock.source.state is ClockState.HELD
    restarted = FileClock(tmp_path / "clock", realtime_ns=host)
    assert restarted.now().hi_ns == NOON_NS - 10**9 + 500
    assert restarted.source.state is ClockState.OK


def test_two_writers_of_one_file_follow_each_other(tmp_path: Path) -> None:
    """A writer that opens an existing file continues from what it says."""
    host = HostTime()
    writer, clock = file_clock(tmp_path, host)
    writer.change(offset_ns=5_000)
    writer.close()
    ClockFile(tmp_path / "clock", realtime_ns=host).change(bound_ns=2_000)
    assert clock.read() == (NOON_NS + 5_000 - 1_000, NOON_NS + 5_000 + 1_000)


@pytest.mark.parametrize("content", [None, b"", b"K2", b"x" * 64])
def test_what_is_no_clock_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    """Missing, empty, short and foreign files raise ClockUncertain with the path."""
    path = tmp_path / "clock"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClockUncertain, match="clock"):
        FileClock(path)
    with pytest.raises(ClockUncertain, match="clock"):
        ClockFile(path)


def test_a_writer_that_died_in_the_middle_is_noticed(tmp_path: Path) -> None:
    """A reader never uses a half-written state; it refuses instead."""
    host = HostTime()
    _, clock = file_clock(tmp_path, host)
    path = tmp_path / "clock"
    image = bytearray(path.read_bytes())
    image[8] |= 1
    path.write_bytes(bytes(image))
    with pytest.raises(ClockUncertain, match="did its writer die"):
        clock.read()


def test_settings_choose_the_clock(tmp_path: Path) -> None:
    """Each name opens its source, with the bound and the path it was given."""
    path = tmp_path / "clock"
    ClockFile.create(path, 4_000).close()
    assert open_clock("declared", bound_ns=2_000).now().width_ns == 2_000
    assert open_clock("file", path=path).now().width_ns == 4_000
    assert open_clock("kernel").source.name == "kernel"


@pytest.mark.parametrize(
    "source, bound_ns, field",
    [("sundial", 1_000, "clock.source"), ("declared", 0, "clock.bound"), ("file", 1, "clock.file")],
)
def test_settings_that_choose_no_clock_are_refused(source: str, bound_ns: int, field: str) -> None:
    """An unknown source, a senseless bound or a missing path is Rejected by name."""
    with pytest.raises(Rejected) as caught:
        open_clock(source, bound_ns=bound_ns)
    assert caught.value.field == field


def test_the_clock_for_durations_counts_up() -> None:
    """Boot time is positive and does not step back between two readings."""
    first = boottime_ns()
    assert 0 < first <= boottime_ns()
    assert DeclaredClock().monotonic_ns() >= first
