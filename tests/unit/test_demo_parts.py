"""The parts of `k2 demo` that decide what it says: journals, causes, comparing, staleness, room, plots."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from bench.demo.comparing import Shown, differences
from bench.demo.course import Compared, Course, Fault
from bench.demo.figures import details, faults_told, figures, verdicts_told
from bench.demo.judging import Judgement, judge
from bench.demo.plots import COLOURS, POINTS_MAX, Band, Line, bars, chart, distribution, thinned
from bench.demo.simulated import wire
from bench.demo.simulated.arrivals import arrivals
from bench.demo.simulated.causes import causes, ideal_of
from bench.demo.simulated.findings import untrue
from bench.demo.simulated.messages import Done, Give, Look, Outcome, Pages, Prompt, Stock
from bench.demo.simulated.plan import in_time, prompts, rate_for, slots_for, speed_for
from bench.demo.simulated.shelf import TIER, Shelf, page_of
from bench.demo.timeline import Publish, Timeline
from bench.trace import Request, generate
from k2store.testing import embedded
from k2store.testing.cluster.local_cluster import free_ports
from k2store.testing.wan.link import LinkCounts
from kv_pool.edge.journal import Journal, Note, Recording, read
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied
from kv_pool.edge.trace import Namer
from kv_pool.namespace import Namespace

DESCRIPTION = Namespace(tenant="", model="m", revision="r", dtype="d", layout="l", block_tokens=512)


def names(*blocks: int) -> bytes:
    """Names of blocks, packed."""
    return Namer().names_of(blocks)


# ------------------------------------------------------------------------------------ journals


def notes_of_a_life(path: Path) -> list[Note]:
    """A worker registers, publishes, is claimed, evicts, and is fenced."""

    async def scene() -> None:
        journal = Journal(path, "test")
        async with embedded() as db, Pool(db, "fra") as pool:
            namespace = await pool.declare(DESCRIPTION)
            pool.store = Recording(pool.store, journal)
            async with pool.worker("w", ttl_s=60) as worker, pool.learner() as tree:
                chain = await worker.publish(namespace, names(0, 1, 2, 3), TIER)
                await tree.caught_up(chain.at)
                cover = tree.cover(worker.worker, namespace, names(0, 1, 2, 3))
                short = tree.cover(worker.worker, namespace, names(0, 1))
                assert cover is not None
                assert short is not None
                claim = await pool.acquire(cover)
                assert (await worker.evict(TIER, names(3))).pinned == names(3)
                await pool.release(claim)
                assert (await worker.evict(TIER, names(3))).gone == names(3)
                await pool.acquire(short)
                evicted = await worker.evict(TIER, names(1, 2))
                assert (evicted.gone, evicted.pinned) == (names(2), names(1))
                await worker.leave()
                with pytest.raises(Denied):
                    await pool.acquire(short)
        journal.close()

    asyncio.run(scene())
    return read(path)


def test_a_journal_says_what_was_asked_and_what_came_of_it(tmp_path: Path) -> None:
    """Each transaction of the directory is there in the checker's words, refused ones as failed."""
    notes = notes_of_a_life(tmp_path / "j")
    told = [(note.f, note.kind) for note in notes if note.kind != "invoke"]
    assert told == [
        *[("register", "ok"), ("publish", "ok"), ("acquire", "ok"), ("evict", "fail")],
        *[("release", "ok"), ("evict", "ok"), ("acquire", "ok")],
        *[("evict", "fail"), ("evict", "ok"), ("fence", "ok"), ("acquire", "fail")],
    ]
    assert [note.value["keep"] for note in notes if (note.f, note.kind) == ("evict", "ok")] == [
        3,
        2,
    ]
    publish = next(note for note in notes if note.f == "publish")
    assert publish.value["blocks"] == 4
    assert publish.names == names(0, 1, 2, 3)
    evict = next(note for note in notes if (note.f, note.kind) == ("evict", "ok"))
    assert evict.value["keep"] == 3
    assert evict.value["generation"] == publish.value["generation"]
    claim = next(note for note in notes if note.f == "acquire")
    assert claim.value["held"][0]["blocks"] == 4  # type: ignore[index]


def test_the_judge_finds_what_was_left_out(tmp_path: Path) -> None:
    """The journals of a life are valid; without the publish, or the release, they are not."""
    notes = notes_of_a_life(tmp_path / "j")
    assert judge(notes).valid
    without = [note for note in notes if note.f != "publish"]
    assert not judge(without).valid
    kept = judge([note for note in notes if note.f != "release"])
    assert not kept.valid
    assert "claim" in kept.findings[0]


def test_a_journal_cut_off_by_a_kill_is_read(tmp_path: Path) -> None:
    """What was written whole counts; an operation without an answer is of unknown outcome."""
    path = tmp_path / "j"
    journal = Journal(path, "w")
    journal.begin("publish", {"worker": "fra/w", "incarnation": 1}, names(1)).note("ok", 5)
    journal.begin("evict", {"worker": "fra/w"})
    journal.close()
    assert [note.kind for note in read(path)] == ["invoke", "ok", "invoke"]
    path.write_bytes(path.read_bytes()[:-3])
    assert [note.kind for note in read(path)] == ["invoke", "ok"]


# ------------------------------------------------------------------------------------- figures


def test_figures_of_a_course_are_those_of_its_calm(tmp_path: Path) -> None:
    """Publishes that a fault fell into are counted and not timed; only what goes between regions is traffic of the
    network; what differs anywhere breaks the promise, and is told."""
    notes = [
        *published("fra/w", 3_000_000, 1, 2),
        *[
            Note(
                one.kind,
                one.process,
                one.f,
                one.value,
                one.time_ns + 2 * (one.kind == "ok"),
                9,
                one.names,
            )
            for one in published("fra/w", 50_000_000, 5)
        ],
    ]
    fault = Fault(
        kind="cut", what="cut off", began_ns=40_000_000, ended_ns=60_000_000, recovery_s=2.5
    )
    course = Course(
        began_ns=0,
        started_ns=1_000_000,
        ended_ns=2_001_000_000,
        crossings=0,
        faults=[fault],
        wan={("fra", "iad"): LinkCounts(sent_bytes=7), ("fra", "fra"): LinkCounts(sent_bytes=100)},
        compared=Compared(4, 0, []),
        notes=notes,
    )
    valid = Judgement(valid=True, operations=2, unknown=0, seconds=0.0, findings=())
    found = figures(course, Timeline(notes, course.started_ns), valid, machine_load=1.0)
    assert (found.publishes, found.published_blocks, found.wan_bytes) == (2, 3, 7)
    assert found.publish.max_ms == 1e-6
    assert (found.elapsed_s, found.recovery_s, found.kept) == (2.0, 2.5, True)
    assert dict(verdicts_told(found))["learners in the end"] == "equal the store (4 rows)"
    fault.compared = Compared(3, 2, ["iad: a row"])
    assert not found.kept
    assert "DIFFER from the store (3 rows, 2 prompts)" in dict(faults_told(found))["after cut"]
    assert details(found)["learner_differences"] == 1
    assert details(found)["compared_rows"] == 7


# -------------------------------------------------------------------------------------- causes


def outcome(number: int, at_ns: int, computed: int, **fields: object) -> Outcome:
    """What became of a prompt of some blocks that was matched at a moment and served at once."""
    known: dict[str, object] = {
        "region": "fra",
        "worker": "fra/w",
        "arrived_ns": at_ns,
        "matched_ns": at_ns,
        "ended_ns": at_ns + 1,
        "as_of": 0,
        "stale_ns": 0,
        "match_ns": 0,
        "computed": computed,
    }
    return Outcome(number=number, **(known | fields))  # type: ignore[arg-type]


def done(f: str, at_ns: int, value: dict[str, object], packed: bytes = b"") -> list[Note]:
    """Something that was asked for and done at a moment."""
    process = f"{f} {at_ns}"
    return [
        Note("invoke", process, f, value, at_ns - 1, 0, packed),
        Note("ok", process, f, value, at_ns, at_ns, packed),
    ]


def published(worker: str, at_ns: int, *blocks: int) -> list[Note]:
    """A publish."""
    value: dict[str, object] = {"worker": worker, "run": f"run {blocks[0]}", "generation": 1}
    return done("publish", at_ns, value, names(*blocks))


def evicted(worker: str, at_ns: int, first: int, keep: int) -> list[Note]:
    """An eviction."""
    value: dict[str, object] = {"worker": worker, "run": f"run {first}", "generation": 1}
    return done("evict", at_ns, value | {"keep": keep})


CASES = {
    "computing": (published("fra/w", 900, 1, 2), {}),
    "unkept": ([], {}),
    "unseen": (published("fra/w", 40, 1, 2), {}),
    "far": (published("iad/w", 40, 1, 2), {}),
    "evicted": (published("fra/w", 40, 1, 2) + evicted("fra/w", 60, 1, 0), {}),
    "lost": (
        published("fra/w", 40, 1, 2) + done("fence", 60, {"worker": "fra/w", "incarnation": 2}),
        {},
    ),
    "cheaper": (published("fra/w", 40, 1, 2), {"known": 2}),
    "refused": (published("fra/w", 40, 1, 2), {"known": 2, "denied": 1}),
}


@pytest.mark.parametrize("cause", CASES)
def test_every_block_short_of_the_ideal_has_its_cause(cause: str) -> None:
    """A prompt computes two blocks that another has computed before it; the journals say why."""
    notes, fields = CASES[cause]
    requests = [Request(0, 1, 1, (1, 2))] * 2
    outcomes = [outcome(0, 10, 2), outcome(1, 100, 2, **fields)]
    found = causes(requests, outcomes, Timeline(notes))
    assert {name: blocks for name, blocks in found.items() if blocks} == {cause: 2}
    assert ideal_of(requests, outcomes) == 2


def test_an_eviction_from_behind_leaves_the_beginning() -> None:
    """Of a run that was shortened the first blocks are there and the others are not."""
    timeline = Timeline(published("fra/w", 40, 1, 2, 3) + evicted("fra/w", 60, 1, 2))
    gone = [timeline.copies[names(block)][0].gone for block in (1, 2, 3)]
    assert gone == ["", "", "evicted"]


def test_an_understated_age_is_found() -> None:
    """A match that claims to show a moment, and does not show what was acknowledged before it."""
    publishes = [Publish("fra/w", 10, 50, stamp=7, blocks=1)]
    honest = outcome(0, 100, 0, as_of=6, stale_ns=60)
    fresh = outcome(0, 100, 0, as_of=7, stale_ns=0)
    wrong = outcome(0, 100, 0, as_of=6, stale_ns=40)
    assert untrue([honest, fresh], publishes) == 0
    assert untrue([honest, wrong, fresh], publishes) == 1


# ----------------------------------------------------------------------------------- comparing


def test_a_learner_that_differs_is_found() -> None:
    """A learner equals the scan at its stamp, though the store has gone on; a row that it shows otherwise,
    one it lacks, and a depth that is wrong are differences."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool, pool.learner() as tree:
            namespace = await pool.declare(DESCRIPTION)
            async with pool.worker("w", ttl_s=60) as worker:
                chain = await worker.publish(namespace, names(0, 1, 2), TIER)
                chain = await worker.publish(namespace, names(0, 1, 5), TIER)
                await tree.caught_up(chain.at)
                prompts = [names(0, 1, 2, 3), names(0, 1, 5), names(9)]
                shown = Shown(tree, ("fra",), namespace, prompts)
                assert [list(depths.values()) for depths in shown.depths] == [[3], [3], []]
                await worker.publish(namespace, names(7, 8), TIER)
                assert await differences(db, shown) == (2, [])

                place = next(iter(shown.rows))
                row = shown.rows[place]
                shown.rows[place] = row + row[:16]
                assert len((await differences(db, shown))[1]) == 1
                del shown.rows[place]
                assert "nothing shown" in (await differences(db, shown))[1][0]
                shown.rows[place] = row
                shown.depths[0] = {}
                assert "prompt 0" in (await differences(db, shown))[1][0]

    asyncio.run(scene())


# ----------------------------------------------------------------------------------------- room


def test_room_is_made_by_asking() -> None:
    """A full shelf drops what nobody claims, oldest leaf first, keeps what is claimed, and keeps as
    much of a prompt as it has room for; its pages are those of its blocks."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool, pool.learner() as tree:
            namespace = await pool.declare(DESCRIPTION)
            async with pool.worker("w", ttl_s=60) as worker:
                shelf = Shelf(worker, 4)

                async def take(*blocks: int) -> int:
                    slots = await shelf.put(names(*blocks))
                    kept = names(*blocks)[: 16 * len(slots)]
                    chain = await worker.publish(namespace, kept, TIER)
                    shelf.let_go(kept, slots)
                    await tree.caught_up(chain.at)
                    return len(slots)

                assert await take(0, 1) == 2
                assert await take(5, 6) == 2
                cover = tree.cover(worker.worker, namespace, names(0, 1))
                assert cover is not None
                claim = await pool.acquire(cover)
                assert await take(7, 8, 9) == 2
                assert (shelf.evicted, shelf.blocks, shelf.free) == (2, 4, 0)
                assert shelf.pages(names(0, 1, 2)) == [page_of(names(0)), page_of(names(1))]
                assert shelf.pages(names(5)) == []
                assert sorted(shelf.slots_of(names(0, 1, 7, 8))) == [0, 1, 2, 3]
                assert shelf.churn_per_s > 0
                await pool.release(claim)

    asyncio.run(scene())


# ------------------------------------------------------------------------------------ processes


def test_calls_are_answered_and_ends_are_noticed() -> None:
    """Many questions at once each get their answer; a failure is told in words; who waits when the
    other end goes learns that, and the next question finds the one that has taken its place."""

    async def handle(message: object) -> Pages:
        if isinstance(message, Give):
            await asyncio.sleep(0.001 * (message.names[0] % 5))
            return Pages([message.names])
        if isinstance(message, Look):
            await asyncio.sleep(60)
        raise ValueError("not this")

    async def scene() -> None:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        peer = wire.Peer(address, wire.refuse)
        with pytest.raises(wire.Gone):
            await peer.ask(Done())
        server = await wire.listen(address, handle)
        answers = await asyncio.gather(*[peer.ask(Give(bytes([one]))) for one in range(50)])
        assert answers == [Pages([bytes([one])]) for one in range(50)]
        with pytest.raises(wire.Failed, match="not this"):
            await peer.ask(Stock())
        waiting = asyncio.create_task(peer.ask(Look()))
        await asyncio.sleep(0.05)
        await peer.close()
        with pytest.raises(wire.Gone):
            await waiting
        assert await peer.ask(Give(b"\0")) == Pages([b"\0"])
        await peer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(scene())


# ---------------------------------------------------------------------------------------- plans


def test_prompts_come_to_regions_by_conversation() -> None:
    """Every prompt comes to one region; nine in ten of a conversation to the same one, and which is the
    same every time."""
    requests = generate(3)[:2_000]
    regions = ("fra", "iad", "sin")
    found = arrivals(requests, regions)
    assert sorted(one.number for prompts in found.values() for one in prompts) == list(range(2_000))
    assert all(400 < len(prompts) < 900 for prompts in found.values())
    assert found == arrivals(requests, regions)
    homes: dict[str, list[str]] = {}
    for region, coming in found.items():
        for prompt in coming:
            assert isinstance(prompt, Prompt)
            homes.setdefault(prompt.session, []).append(region)
    at_home = sum(max(map(where.count, regions)) for where in homes.values())
    assert 0.88 < at_home / 2_000 < 1.0


def test_plans_fit_the_trace(tmp_path: Path) -> None:
    """Times count from the first prompt, the speed gives the rate, which is lower where syncs take long, and
    an endless pool holds everything."""
    file = tmp_path / "trace"
    lines = [Request(5_000 + 1_000 * one, 600, 3, (0, one + 1)) for one in range(100)]
    file.write_bytes(b"".join([msgspec.json.encode(one) + b"\n" for one in lines]))
    found = prompts(file, 50, 0)
    assert (found[0].timestamp, found[-1].timestamp, len(found)) == (0, 49_000, 50)
    assert speed_for(found, 60.0) == pytest.approx(49 * 60 / 50)
    assert len(in_time(found, 0.5)) == 21
    assert (rate_for(0.0001), rate_for(0.010), rate_for(1.0)) == (60.0, pytest.approx(15.0), 5.0)
    assert (slots_for(found, None), slots_for(found, 7)) == (51, 7)


# ---------------------------------------------------------------------------------------- plots


def pictures(text: str) -> list[ET.Element]:
    """The drawings in a piece of a page; they must be well-formed."""
    found = []
    for part in text.split("<svg")[1:]:
        drawn = "<svg" + part.partition("</svg>")[0] + "</svg>"
        found.append(ET.fromstring(quoted(drawn)))
    return found


def quoted(drawn: str) -> str:
    """HTML allows attributes without quotes, XML does not."""
    import re

    return re.sub(r"=([\w.#-]+)(?=[\s>/])", r"='\1'", drawn)


def test_plots_are_drawings() -> None:
    """Charts, also empty ones and ones of a single value, are well-formed, stay inside their frame, and
    escape what they are told."""
    line = Line("a < b", [(float(at), float(at % 7)) for at in range(3_000)], COLOURS[0])
    for drawn in (
        chart([line], title="x & y", across="s", up="ms", bands=[Band("cut <1>", 3, 9)]),
        chart([], title="nothing", across="s", up="ms"),
        chart([distribution("d", [5.0], COLOURS[1])], title="t", across="ms", up="%", log=True),
        chart(
            [distribution("d", [0.0, 3e4], COLOURS[1])], title="t", across="ms", up="%", log=True
        ),
        bars([("one", 3.0, "3"), ("none", 0.0, "0")], title="bars"),
        bars([], title="no bars"),
    ):
        (picture,) = pictures(drawn)
        _, _, width, height = map(float, picture.attrib["viewBox"].split())
        for shape in picture.iter():
            for pair in shape.attrib.get("points", "").split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height
    assert len(thinned(line.points)) == POINTS_MAX
    assert thinned(line.points)[-1] == line.points[-1]
