"""Faults of links: cuts of every shape, delay, loss and doubling, on the emulated network.

Several faults may happen to one direction at a time. Each is a layer over the link's own rule; what
is in force is all layers, the last one on top, and a layer that ends takes away only itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from jepsen_like.nemesis.schedule import Fault, Pair
from jepsen_like.nemesis.turning import turning

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World
    from k2store.testing.wan import LinkCounts, Wan

NS: Final = 1e-9
DOUBLE: Final = 0.5
"""Share of packets that arrive twice, where a schedule does not say."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault does to a direction beside what happens there anyway."""

    cut: bool = False
    extra_s: float = 0.0
    loss: float = 0.0
    double: float = 0.0


class Links:
    """The directions between hosts, in terms of the places where they stand."""

    def __init__(self, wan: Wan, places: Mapping[str, str]) -> None:
        """`places`: of each host its name in the network."""
        self._wan = wan
        self._places = dict(places)
        self._lock = threading.Lock()
        self._layers: dict[Pair, list[Layer]] = {}
        self._calm_s = {
            (one, other): wan.rule(one, other).delay_s
            for one in wan.regions
            for other in wan.regions
        }

    def between(self, pairs: Iterable[Pair]) -> list[Pair]:
        """The directions in the network of directions between hosts; those inside a place have none."""
        found = {(self._places[one], self._places[other]) for one, other in pairs}
        return sorted((one, other) for one, other in found if one != other)

    def put(self, directions: Iterable[Pair], layer: Layer) -> None:
        """Lay something over directions."""
        with self._lock:
            for direction in directions:
                self._layers.setdefault(direction, []).append(layer)
                self._apply(direction)

    def take(self, directions: Iterable[Pair], layer: Layer) -> None:
        """Take it away again."""
        with self._lock:
            for direction in directions:
                self._layers[direction].remove(layer)
                self._apply(direction)

    def counts(self, directions: Iterable[Pair]) -> LinkCounts:
        """What happened on these directions so far, added up."""
        with self._lock:
            every = self._wan.statistics()
        found = [every[direction] for direction in directions]
        total = type(found[0])() if found else type(next(iter(every.values())))()
        for one in found:
            for name in one.__struct_fields__:
                setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    def _apply(self, direction: Pair) -> None:
        wan = self._wan
        wan.heal(*direction)
        layers = self._layers[direction]
        extra_s = sum(layer.extra_s for layer in layers)
        if extra_s:
            wan.delay(*direction, (self._calm_s[direction] + extra_s) * 1000)
        if loss := max((layer.loss for layer in layers), default=0.0):
            wan.loss(*direction, loss)
        if double := max((layer.double for layer in layers), default=0.0):
            wan.double(*direction, double)
        if any(layer.cut for layer in layers):
            wan.cut(*direction)


# -- drivers ---------------------------------------------------------------------------------------


def _directions(world: World, fault: Fault) -> list[Pair]:
    return world.links.between(world.schedule.pairs(fault))


def cut(world: World, fault: Fault) -> Running:
    """Nothing passes in these directions."""
    directions, layer = _directions(world, fault), Layer(cut=True)
    before = world.links.counts(directions).cut
    world.links.put(directions, layer)
    yield
    met = world.links.counts(directions).cut - before
    world.links.take(directions, layer)
    return f"{met} packets met the cut" if met else None


def flap(world: World, fault: Fault) -> Running:
    """Cut and healed in turn, every `amount` ns."""
    directions, layer = _directions(world, fault), Layer(cut=True)
    before = world.links.counts(directions)
    down = False

    def turn() -> None:
        nonlocal down
        (world.links.take if down else world.links.put)(directions, layer)
        down = not down

    with turning(max(0.05, fault.amount * NS), turn) as turned:
        yield
    if down:
        turn()
    after = world.links.counts(directions)
    cut_, passed = after.cut - before.cut, after.delivered - before.delivered
    if not cut_ or not passed:
        return None
    return f"{cut_} packets met a cut and {passed} passed, in {turned.count} turns"


def slow(world: World, fault: Fault) -> Running:
    """Everything takes `amount` ns longer."""
    directions, layer = _directions(world, fault), Layer(extra_s=fault.amount * NS)
    before = world.links.counts(directions).sent
    world.links.put(directions, layer)
    yield
    sent = world.links.counts(directions).sent - before
    world.links.take(directions, layer)
    return f"{sent} packets took {layer.extra_s * 1000:.0f} ms longer" if sent else None


def lossy(world: World, fault: Fault) -> Running:
    """`amount` of all packets are lost, and as many doubled."""
    directions = _directions(world, fault)
    layer = Layer(loss=fault.amount, double=fault.amount)
    before = world.links.counts(directions)
    world.links.put(directions, layer)
    yield
    after = world.links.counts(directions)
    world.links.take(directions, layer)
    lost, doubled = after.lost - before.lost, after.doubled - before.doubled
    return f"{lost} packets lost, {doubled} doubled" if lost else None


def duplicate(world: World, fault: Fault) -> Running:
    """Half of all packets arrive twice."""
    directions, layer = _directions(world, fault), Layer(double=fault.amount or DOUBLE)
    before = world.links.counts(directions).doubled
    world.links.put(directions, layer)
    yield
    doubled = world.links.counts(directions).doubled - before
    world.links.take(directions, layer)
    return f"{doubled} packets doubled" if doubled else None
