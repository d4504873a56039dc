"""Processes, clocks, chance and faults: what a program in the simulator can rely on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from k2store.clock import Clock, ClockState
from k2store.errors import K2Error
from k2store.rpc.transport import Connection, TransportError
from k2store.testing.simulation import (
    ACTIONS,
    MILLISECOND_NS,
    SECOND_NS,
    SIMULATOR_PROBES,
    START_NS,
    Buggify,
    Conditions,
    Engine,
    Environment,
    Fault,
    Probes,
    ProcessEnded,
    Simulation,
    UnhandledError,
    derive,
    draw_knobs,
    draw_schedule,
    shrink,
    stream,
)
from k2store.testing.simulation.swarm import DAMAGE_FAULTS, TOLERATED_FAULTS


class Expected(Exception):
    """What a program under test may end with."""


async def tick(environment: Environment) -> None:
    """Count for ever."""
    while True:
        await asyncio.sleep(0.1)


def test_a_main_returns_its_result():
    """What a main returns reaches whoever waits for the process, and it is not started again."""

    async def main(environment: Environment) -> str:
        await asyncio.sleep(1)
        return f"{environment.name}, incarnation {environment.incarnation}"

    with Simulation(1) as simulation:
        processes = [simulation.process(name, main) for name in ("a", "b")]
        assert simulation.wait_for(processes) == ["a, incarnation 1", "b, incarnation 1"]
        simulation.heal()
        assert not processes[0].alive


def test_a_main_that_fails_unexpectedly_fails_the_run():
    """An exception nobody declared ends the run with that exception as its cause."""

    async def main(environment: Environment) -> None:
        raise LookupError("unexpected")

    with Simulation(1) as simulation:
        simulation.process("a", main)
        with pytest.raises(UnhandledError) as failure:
            simulation.run_for(1)
        assert isinstance(failure.value.__cause__, LookupError)


def test_a_declared_end_is_followed_by_a_restart():
    """A program that stops itself as declared is started again by its supervisor, in time."""
    started: list[int] = []

    async def main(environment: Environment) -> None:
        started.append(environment.loop.now_ns)
        await asyncio.sleep(1)
        raise Expected

    with Simulation(1) as simulation:
        process = simulation.process("a", main, fail_stop=(Expected,), restart_ns=2 * SECOND_NS)
        simulation.run_for(13 * SECOND_NS // 2)
        assert started == [0, 3 * SECOND_NS, 6 * SECOND_NS]
        assert [type(error) for error in process.exits] == [Expected, Expected]


def test_a_program_can_die_at_a_point_of_its_own():
    """Environment.crash ends everything there: no further line, no `finally`, no other task."""
    lines: list[str] = []

    async def other() -> None:
        await asyncio.sleep(1.5)
        lines.append("other")

    async def main(environment: Environment) -> None:
        task = asyncio.get_running_loop().create_task(other())
        await asyncio.sleep(1)
        lines.append("before")
        environment.crash("the point")
        lines.append("after")
        await task

    with Simulation(1) as simulation:
        process = simulation.process("a", main)
        waiting = simulation.loop.create_task(process.wait())
        with pytest.raises(ProcessEnded):
            simulation.run(waiting)
        simulation.run_for(5 * SECOND_NS)
        assert lines == ["before"]
        assert not process.alive
        assert simulation.probes.counts["process.crashed_itself"] == 1


def test_a_crash_inside_a_callback_is_contained():
    """Dying in a callback of the loop ends the process and not the run."""

    async def main(environment: Environment) -> None:
        asyncio.get_running_loop().call_later(1, environment.crash, "in a callback")
        await tick(environment)

    with Simulation(1) as simulation:
        process = simulation.process("a", main, restart_ns=1 * SECOND_NS)
        simulation.run_for(3 * SECOND_NS + 1)
        assert process.incarnation == 2


def test_stopping_in_good_order():
    """A stop only asks: the program finishes what it does and returns."""

    async def main(environment: Environment) -> str:
        await environment.stopping.wait()
        await asyncio.sleep(1)
        return "drained"

    with Simulation(1) as simulation:
        process = simulation.process("a", main)
        simulation.run_for(1 * SECOND_NS)
        process.stop()
        assert simulation.wait_for([process]) == ["drained"]
        assert simulation.loop.now_ns == 2 * SECOND_NS


def test_a_paused_process_finds_its_time_gone():
    """After a pause the process sees the time that has passed, before it can act on old checks."""
    seen: list[tuple[int, int]] = []

    async def main(environment: Environment) -> None:
        while True:
            before_ns = environment.clock.monotonic_ns()
            await asyncio.sleep(0.1)
            seen.append((before_ns, environment.clock.monotonic_ns()))

    with Simulation(1) as simulation:
        process = simulation.process("a", main)
        simulation.run_for(1 * SECOND_NS)
        process.pause()
        count = len(seen)
        simulation.run_for(10 * SECOND_NS)
        assert len(seen) == count
        assert process.resume() == 1
        simulation.run_for(1 * SECOND_NS)
        before_ns, after_ns = seen[count]
        assert after_ns - before_ns >= 10 * SECOND_NS


def test_chance_is_split_by_name_and_purpose():
    """Streams differ by seed, process, incarnation and purpose, and do not disturb each other."""
    first = stream(1, "a", "b").random()
    names = [(1, "a", "b"), (2, "a", "b"), (1, "ab", ""), (1, "", "ab"), (1, "a", "c")]
    assert len({derive(*parts) for parts in names}) == len(names)
    disturbing = stream(1, "other")
    disturbing.random()
    assert stream(1, "a", "b").random() == first
    drawn: list[float] = []

    async def main(environment: Environment) -> None:
        drawn.append(environment.random("x").random())
        drawn.append(environment.random("y").random())
        await environment.stopping.wait()

    with Simulation(1) as simulation:
        for name in ("a", "b"):
            simulation.process(name, main)
        simulation.run_for(1)
        simulation.processes["a"].restart()
        simulation.run_for(1)
    assert len(set(drawn)) == 6


def test_the_derivation_of_seeds_is_for_ever():
    """Recorded seeds keep their meaning: the derivation gives the values it always gave."""
    assert derive(0) == 5769824443010619093
    assert derive(7, "link", "a", 3) == 9509532644973719240


def clock_of(simulation: Simulation, **settings) -> Clock:
    """The clock of a process on a machine with these settings."""
    process = simulation.process(simulation.machine("a", **settings), tick)
    assert process.environment is not None
    return process.environment.clock


SPOILERS: dict[str, Callable[[Simulation], None]] = {
    "ahead": lambda simulation: simulation.machines["a"].clock.set_offset(SECOND_NS),
    "behind": lambda simulation: simulation.machines["a"].clock.set_offset(-SECOND_NS),
    "fast": lambda simulation: simulation.machines["a"].clock.set_drift(10_000_000),
    "slow": lambda simulation: simulation.machines["a"].clock.set_drift(-10_000_000),
    "frozen": lambda simulation: simulation.machines["a"].clock.freeze(),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_an_honest_clock_contains_true_time_whatever_happens(spoiler):
    """An honest interval always contains true time and never steps back; a dishonest one errs."""
    for honest in (True, False):
        with Simulation(1) as simulation:
            clock = clock_of(simulation, honest=honest)
            errors, last = 0, (0, 0)
            for step in range(200):
                simulation.run_for(10 * MILLISECOND_NS)
                if step == 100:
                    SPOILERS[spoiler](simulation)
                interval = clock.now()
                assert (interval.lo_ns, interval.hi_ns) == clock.read()
                assert interval.lo_ns >= last[0]
                assert interval.hi_ns >= last[1]
                last = (interval.lo_ns, interval.hi_ns)
                errors += not interval.contains(simulation.true_ns())
            assert simulation.probes.counts["clock.outside_bound"] >= errors
            assert (errors == 0) is honest
            assert simulation.true_ns() == START_NS + 2 * SECOND_NS


def test_a_clock_says_when_it_is_held():
    """After a step back the clock stands still and says so, until time has caught up."""
    with Simulation(1) as simulation:
        clock = clock_of(simulation, bound_ns=10 * SECOND_NS)
        clock.read()
        simulation.machines["a"].clock.set_offset(-SECOND_NS)
        assert clock.source.state is ClockState.HELD
        simulation.run_for(2 * SECOND_NS)
        assert clock.source.state is ClockState.OK
        assert clock.source.bound_ns == 10 * SECOND_NS


def test_a_monotonic_clock_never_steps_back_and_begins_anew_with_power():
    """Steps of the wall clock do not move it; a power cut does."""
    with Simulation(1) as simulation:
        clock = clock_of(simulation)
        simulation.machines["a"].clock.set_offset(-SECOND_NS)
        before_ns = clock.monotonic_ns()
        simulation.run_for(SECOND_NS)
        assert clock.monotonic_ns() - before_ns == SECOND_NS
        process = simulation.processes["a"]
        process.power_cut()
        environment = process.start()
        assert environment.clock.monotonic_ns() == 0


def test_probes_are_declared():
    """An undeclared probe is an error, and those never hit are listed."""
    probes = Probes({"here": "", "there": ""})
    probes.hit("here")
    assert probes.counts == {"here": 1, "there": 0}
    assert probes.missed() == ["there"]
    with pytest.raises(KeyError):
        probes.hit("nowhere")


def test_buggify_arms_a_quarter_of_the_places_and_can_be_silenced():
    """About a quarter of the places ever says yes, at about its own rate, the same for a seed."""
    places = [f"place {number}" for number in range(400)]
    buggify = Buggify(1)
    said = {place: sum(buggify(place, 0.5) for _ in range(50)) for place in places}
    armed = [place for place in places if said[place]]
    assert 70 < len(armed) < 130
    assert 15 < sum(said.values()) / len(armed) < 35
    again = Buggify(1)
    assert {place: sum(again(place, 0.5) for _ in range(50)) for place in places} == said
    buggify.enabled = False
    assert not any(buggify(place, 1.0) for place in places)


AIMED = {"majority", "starve-cpu", "duplicate", "corrupt", "clock-strobe"}
"""Faults that plans draw which know where to aim them."""


def test_schedules_are_drawn_from_what_is_allowed():
    """Every drawn fault is of an allowed kind, has what its kind needs, and begins in time."""
    seen: set[str] = set()
    for seed in range(300):
        chance = random.Random(seed)
        knobs = draw_knobs(chance, TOLERATED_FAULTS + DAMAGE_FAULTS)
        schedule = draw_schedule(chance, ["a", "b", "c"], ["a", "b", "c", "d"], 10**10, knobs)
        assert schedule
        for fault in schedule:
            seen.add(fault.name)
            assert fault.name in knobs.kinds
            assert bool(fault.target) != bool(fault.pairs)
            assert 0 < fault.for_ns <= knobs.lasts_ns
        assert [fault.at_ns for fault in schedule] == sorted(fault.at_ns for fault in schedule)
    assert seen == set(ACTIONS) - AIMED


AMOUNTS = {
    "starve-cpu": 0.2,
    "clock-strobe": 1e6,
    "flap": 20e6,
    "slow-link": 50e6,
    "lossy-link": 0.5,
    "slow-disk": 5e6,
    "clock-step": 1e9,
    "clock-drift": 1e6,
    "clock-doubt": 10,
}


class Echo:
    """A handler that sends every frame back."""

    def on_connect(self, connection: Connection) -> None:
        """Nothing to prepare."""

    def on_close(self, connection: Connection, reason: str) -> None:
        """Nothing to clean up."""

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Send it back."""
        connection.send(frame)


async def serve(environment: Environment) -> None:
    """Echo, and keep log, settled rows and clock busy; any trouble with them is an Expected."""
    try:
        store = environment.open_store()
        await environment.listen(1, Echo())
        while True:
            await asyncio.sleep(0.005)
            store.log.append(bytes(9_000))
            await environment.offload(store.log.sync)
            store.settled.put_meta({b"turn": b"%d" % store.log.durable_lsn})
            store.settled.flush()
            environment.clock.read()
            if store.log.segment_full:
                store.log.begin_segment(b"")
    except K2Error as error:
        raise Expected from error


def ask_again_and_again(answers: list[int]):
    """A client's main that counts the echoes it gets, over a new connection for every twenty."""

    async def main(environment: Environment) -> None:
        while True:
            try:
                async with asyncio.timeout(1):
                    connection = await environment.connect("server:1")
                    for number in range(20):
                        connection.send(b"%d" % number)
                        answers.append(int(await connection.receive()))
                    connection.close()
            except (TransportError, TimeoutError):
                await asyncio.sleep(0.1)

    return main


@pytest.mark.parametrize("name", ACTIONS)
def test_every_fault_can_take_effect_and_heals(name):
    """In a busy pair of processes each fault leaves evidence, and afterwards work goes on."""
    answers: list[int] = []
    conditions = Conditions(far_ns=5 * MILLISECOND_NS, stream_silence_ns=SECOND_NS)
    with Simulation(1, conditions=conditions) as simulation:
        simulation.process(
            simulation.machine("server", "fra"),
            serve,
            fail_stop=(Expected,),
            restart_ns=100 * MILLISECOND_NS,
        )
        simulation.process(simulation.machine("client", "iad"), ask_again_and_again(answers))
        simulation.run_for(SECOND_NS // 2)
        pairs = (("server", "client"), ("client", "server"))
        fault = Fault(10, name, 300 * MILLISECOND_NS, "server", pairs, AMOUNTS.get(name, 1))
        engine = Engine(simulation, [fault])
        if name == "fail-read":
            simulation.loop.call_later(0.1, simulation.processes["server"].restart)
        simulation.run_for(SECOND_NS // 2)
        assert [applied.fault for applied in engine.applied] == [fault]
        assert engine.without_evidence() == []
        engine.stop()
        if name not in DAMAGE_FAULTS:
            done = len(answers)
            simulation.run_for(2 * SECOND_NS)
            assert len(answers) > done + 50


def test_a_fault_waits_for_its_state_and_says_what_it_met():
    """It begins when the state is there, or at last without; both are in the record."""
    with Simulation(1) as simulation:
        simulation.process("a", tick)
        loop = simulation.loop
        since_ns = loop.now_ns

        def look(fault: Fault) -> list[str]:
            return ["late"] if loop.now_ns - since_ns >= SECOND_NS else ["early"]

        faults = [
            Fault(0, "pause", 10, "a", when="late"),
            Fault(0, "clock-step", 10, "a", when="x"),
        ]
        engine = Engine(simulation, faults, look=look)
        simulation.run_for(SECOND_NS - MILLISECOND_NS)
        assert engine.applied == []
        simulation.run_for(2 * MILLISECOND_NS)
        assert [(one.fault, one.met) for one in engine.applied] == [(faults[0], ("late",))]
        simulation.run_for(3 * SECOND_NS)
        assert engine.applied[1].fault == faults[1]


def test_a_broken_stream_delivers_what_its_sender_thinks_lost():
    """The receiver has every frame that was under way; the sender is told of a broken stream."""
    heard: list[bytes] = []

    class Listen(Echo):
        """Keeps what it hears."""

        def on_frame(self, connection: Connection, frame: bytes) -> None:
            """Note it."""
            heard.append(frame)

    async def server(environment: Environment) -> None:
        await environment.listen(1, Listen())
        await asyncio.sleep(100)

    async def client(environment: Environment) -> str:
        connection = await environment.connect("server:1")
        for number in range(5):
            connection.send(b"%d" % number)
        try:
            await connection.receive()
        except TransportError as error:
            return str(error)
        return "an answer"

    with Simulation(1, conditions=Conditions(far_ns=50 * MILLISECOND_NS)) as simulation:
        simulation.process(simulation.machine("server", "fra"), server)
        asking = simulation.process(simulation.machine("client", "iad"), client)
        fault = Fault(0, "duplicate", SECOND_NS, pairs=(("client", "server"),))
        engine = Engine(simulation, [fault])
        (told,) = simulation.wait_for([asking], SECOND_NS)
        simulation.run_for(2 * SECOND_NS)
        assert "reset" in str(told)
        assert heard == [b"%d" % number for number in range(5)]
        assert engine.applied[0].evidence == "5 frames arrived of 1 broken streams"


def test_a_starved_process_gets_its_share():
    """It runs for about the share of the time that it was given."""
    ran: list[float] = []

    async def main(environment: Environment) -> None:
        while True:
            await asyncio.sleep(0.001)
            ran.append(environment.loop.time())

    with Simulation(1) as simulation:
        simulation.process("a", main)
        simulation.run_for(SECOND_NS)
        alone = len(ran)
        Engine(simulation, [Fault(0, "starve-cpu", SECOND_NS, "a", amount=0.25)])
        simulation.run_for(SECOND_NS)
        starved = len(ran) - alone
        assert 0.15 * alone < starved < 0.4 * alone
        simulation.run_for(SECOND_NS)
        assert len(ran) - alone - starved > 0.9 * alone


def test_clocks_of_coarse_steps_show_equal_times():
    """And their intervals still hold true time."""
    with Simulation(1) as simulation:
        clocks = [
            simulation.machine(name, bound_ns=500_000, grain_ns=100_000).clock
            for name in ("a", "b")
        ]
        for _ in range(20):
            simulation.run_for(77_777)
            (lo_ns, hi_ns), other = (clock.edges() for clock in clocks)
            assert (lo_ns, hi_ns) == other
            assert lo_ns <= simulation.true_ns() <= hi_ns
            assert (lo_ns + 250_000) % 100_000 == 0


def test_stopping_an_engine_ends_what_lasts():
    """Faults under way end when the engine stops, and those to come never begin."""
    with Simulation(1) as simulation:
        processes = [simulation.process(name, tick) for name in ("a", "b")]
        pairs = (("a", "b"), ("b", "a"))
        engine = Engine(
            simulation,
            [
                Fault(0, "pause", 10**12, "a"),
                Fault(0, "halves", 10**12, pairs=pairs),
                Fault(0, "kill", 10**12, "b"),
                Fault(5 * SECOND_NS, "kill", 1, "a"),
            ],
        )
        simulation.run_for(SECOND_NS)
        assert processes[0].paused
        assert not processes[1].alive
        assert simulation.network.link("a", "b").cuts == 1
        engine.stop()
        assert processes[0].alive
        assert not processes[0].paused
        assert processes[1].alive
        assert simulation.network.link("a", "b").cuts == 0
        simulation.run_for(10 * SECOND_NS)
        assert processes[0].incarnation == 1
        assert simulation.probes.counts["process.killed"] == 1
        assert set(simulation.probes.counts) == set(SIMULATOR_PROBES)


def test_shrinking_finds_a_least_failing_part():
    """Of any list that fails because of a few items, exactly those remain, in order."""
    chance = random.Random(1)
    for size in (1, 2, 7, 40):
        for _ in range(10):
            guilty = sorted(chance.sample(range(size), min(size, chance.randrange(1, 4))))
            tried: list[list[int]] = []

            def fails(part: list[int], guilty=guilty, tried=tried) -> bool:
                tried.append(part)
                return set(guilty) <= set(part)

            assert shrink(range(size), fails) == guilty
            assert len(tried) <= 400
    assert shrink([1, 2, 3], lambda part: True) == []
    with pytest.raises(ValueError, match="does not fail"):
        shrink([1], lambda part: False)


def test_shrinking_stops_at_its_limit():
    """With few runs allowed the result still fails, though it may be too long."""
    runs: list[int] = []

    def fails(part: list[int]) -> bool:
        runs.append(len(part))
        return 5 in part

    assert 5 in shrink(range(100), fails, runs_max=5)
    assert len(runs) == 5


def test_a_run_that_is_over_is_freed():
    """Nothing that a run has made outlives it, timers that have fired included."""
    import gc
    import weakref

    class Held:
        handle: object = None

        def tick(self) -> None:
            """What a timer calls whose handle this very object keeps."""

    def run() -> weakref.ref:
        held = Held()
        with Simulation(1) as simulation:

            async def main(environment):
                held.handle = environment.loop.call_later(0.1, held.tick)
                await asyncio.sleep(1)

            simulation.wait_for([simulation.process("a", main)], 10 * SECOND_NS)
        return weakref.ref(held)

    gone = run()
    gc.collect()
    assert gone() is None
