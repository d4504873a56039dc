"""Batches as engines put them on the wire, in every form that is known, and what is read from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kv_pool.events.wire import Batch, decode_batch, decode_sequence

FILE = Path(__file__).parent / "kv_pool" / "events.txt"


def digest(number: int) -> bytes:
    """A block hash as sha256 gives it."""
    return hashlib.sha256(bytes([number])).digest()


VLLM_STORED = {
    "type": "BlockStored",
    "block_hashes": [digest(1), digest(2)],
    "parent_block_hash": digest(0),
    "token_ids": list(range(32)),
    "block_size": 16,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": "adapter-a",
    "extra_keys": [["lora", "adapter-a"], None],
    "group_idx": 1,
    "kv_cache_spec_kind": "sliding_window",
    "kv_cache_spec_sliding_window": 4096,
    "locality": "LOCAL",
    "session_id": "s1",
}
BATCHES: dict[str, object] = {
    "vllm 0.33, maps": [
        1.5,
        [
            VLLM_STORED,
            {"type": "BlockRemoved", "block_hashes": [digest(1)], "medium": "CPU", "group_idx": 1},
            {"type": "AllBlocksCleared"},
        ],
        3,
    ],
    "vllm 0.33, defaults left out": [
        1.5,
        [{"type": "BlockStored", "block_hashes": [2**64 - 1, 5], "block_size": 16}],
    ],
    "vllm 0.33, offload without tokens": [
        1.5,
        [
            {
                "type": "BlockStored",
                "block_hashes": [digest(9)],
                "token_ids": [],
                "medium": "STORAGE",
            }
        ],
        None,
    ],
    "vllm before, arrays": [
        1.5,
        [
            ["BlockStored", [digest(1), digest(2)], None, list(range(32)), 16, None],
            ["BlockStored", [7], 6, [1, 2], 2, 4, "CPU", "adapter-b", "more"],
            ["BlockRemoved", [digest(2)]],
            ["BlockRemoved", [7], "CPU"],
            ["AllBlocksCleared"],
        ],
        0,
    ],
    "vllm between, batch as a map": {
        "ts": 1.5,
        "events": [VLLM_STORED],
        "data_parallel_rank": 2,
    },
    "sglang, maps": [
        1.5,
        [
            {
                "type": "BlockStored",
                "block_hashes": [-1, 5, -(2**63)],
                "parent_block_hash": -7,
                "token_ids": [1, 2, 3],
                "block_size": 1,
                "lora_id": None,
                "medium": "CPU_PINNED",
                "cache_salt": "tenant",
                "session_id": "s",
            },
            {"type": "BlockRemoved", "block_hashes": [-1], "medium": "DISK"},
            {"type": "BlockRemoved", "block_hashes": [-1], "medium": "EXTERNAL"},
        ],
        1,
    ],
    "sglang, rank by name": {"ts": 1.5, "events": [], "attn_dp_rank": 4},
    "sglang before, arrays": [
        1.5,
        [["BlockStored", [-1, 5], -7, [1, 2], 1, None], ["AllBlocksCleared"]],
    ],
    "what is not known is passed over": [
        1.5,
        [
            {"type": "BlockMoved", "block_hashes": [1]},
            {"type": "BlockStored", "block_hashes": [], "block_size": 16},
            {"type": "BlockStored", "block_hashes": ["text"], "block_size": 16},
            {"type": "BlockStored", "block_hashes": [b"short"], "block_size": 16},
            {"type": "BlockStored", "block_hashes": [1], "block_size": 16, "medium": "TAPE"},
            {"type": "BlockStored", "block_hashes": [1], "block_size": 16, "news": {"a": 1}},
            {"type": "BlockRemoved"},
            {"kind": 1},
            ["BlockStored"],
            [7],
            [],
            7,
            None,
            {"type": "BlockStored", "block_hashes": [1, b"12345678", digest(3)]},
        ],
        "rank",
    ],
}


def shown(batch: Batch) -> str:
    """What was read, one event a line."""
    lines = [f"rank {batch.rank}, {batch.strange} not understood"]
    for event in batch.events:
        fields = [
            f"{name}={value.hex() if isinstance(value, bytes) else value!r}"
            for name, value in msgspec.structs.asdict(event).items()
        ]
        lines.append(f"  {type(event).__name__} {' '.join(fields)}")
    return "\n".join(lines)


def test_every_form_is_read_as_recorded(update: bool) -> None:
    """Batches of both engines in all their forms give the recorded events; the bytes are fixed, too."""
    found = ""
    for name, value in BATCHES.items():
        payload = msgspec.msgpack.encode(value)
        found += f"# {name}\n{payload.hex()}\n{shown(decode_batch(payload))}\n\n"
    if update:
        FILE.write_text(found, encoding="utf-8")
    assert found == FILE.read_text(encoding="utf-8")


def test_both_forms_say_the_same() -> None:
    """An event as a map and as an array is one event."""
    hashes = [digest(1), digest(2)]
    arrays = [1.0, [["BlockStored", hashes, digest(0), [1], 16, None, "GPU", "a"]], 0]
    maps = [
        1.0,
        [
            {
                "type": "BlockStored",
                "block_hashes": hashes,
                "parent_block_hash": digest(0),
                "block_size": 16,
                "medium": "GPU",
                "lora_name": "a",
            }
        ],
        0,
    ]
    encode = msgspec.msgpack.encode
    assert decode_batch(encode(arrays)) == decode_batch(encode(maps))


def test_sequences() -> None:
    """Eight bytes are a number, all ones the end of a replay, anything else is refused."""
    assert decode_sequence(bytes(7) + b"\x05") == 5
    assert decode_sequence(b"\xff" * 8) == -1
    for frame in (b"", b"1234567", b"123456789"):
        try:
            decode_sequence(frame)
        except ValueError:
            continue
        raise AssertionError(frame)


@given(st.binary(max_size=200))
def test_random_bytes_never_stop_a_reader(payload: bytes) -> None:
    """Bytes that are no batch raise ValueError, and nothing else."""
    try:
        decode_batch(payload)
    except ValueError:
        pass


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=12)
    | st.sampled_from(["BlockStored", "BlockRemoved", "GPU"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(
                ["type", "block_hashes", "parent_block_hash", "medium", "group_idx", "x"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(ANYTHING, st.lists(ANYTHING, max_size=4))
def test_any_shape_is_read_or_refused(first: object, events: list[object]) -> None:
    """Whatever is where events should be, it is understood or counted, or the batch is refused."""
    for value in (first, [first, events], [1.0, events, first], {"events": events}):
        try:
            batch = decode_batch(msgspec.msgpack.encode(value))
        except ValueError:
            continue
        assert batch.strange >= 0


KEY_AMONG_TOKENS = [170, *b"block_size"]
"""Tokens that are, packed, the bytes of the key that stands behind tokens."""
TRICKS = (
    *("\xa9token_ids\u0710", "\xaablock_size", "\xa9token_ids\u0710\xaablock_size", "token_ids"),
    "\xa9token_ids\u0710x\xaablock_size\x10",
)
TOKENS = st.lists(st.sampled_from([0, 7, 127, 128, 170, 65_535, 70_000, 2**33]), max_size=40)


@st.composite
def stored_events(draw: st.DrawFn) -> dict[str, object]:
    """An event with tokens, in any order of its fields, that does what it can to be misread."""
    tokens = draw(TOKENS)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(tokens)))
        tokens[at:at] = [*KEY_AMONG_TOKENS, *draw(st.lists(st.integers(0, 40), max_size=3))]
    fields: dict[str, object] = {
        "block_hashes": draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3)),
        "parent_block_hash": draw(st.none() | st.integers(0, 2**64 - 1)),
        "token_ids": draw(st.just(tokens) | st.none() | st.sampled_from(TRICKS)),
        "block_size": 16,
        "medium": draw(st.none() | st.sampled_from(["GPU", "CPU"])),
        "cache_salt": draw(st.none() | st.sampled_from(TRICKS)),
        "session_id": draw(st.none() | st.sampled_from(TRICKS)),
    }
    names = list(fields)
    kept = draw(st.lists(st.sampled_from(names[1:]), unique=True))
    if draw(st.booleans()):
        kept.sort(key=names.index)
    return {"type": "BlockStored", "block_hashes": fields["block_hashes"]} | {
        name: fields[name] for name in kept
    }


@given(st.lists(stored_events(), max_size=4), st.integers(0, 3))
def test_tokens_are_passed_over_and_nothing_else(
    events: list[dict[str, object]], rank: int
) -> None:
    """Whatever tokens and texts contain, a batch says what it says without its tokens."""
    bare = [{name: one[name] for name in one if name != "token_ids"} for one in events]
    encode = msgspec.msgpack.encode
    assert decode_batch(encode([1.0, events, rank])) == decode_batch(encode([1.0, bare, rank]))


def test_a_key_that_is_found_among_tokens_is_none() -> None:
    """Tokens that spell the key behind them end nothing: the batch is read whole."""
    encode = msgspec.msgpack.encode
    assert b"\xaablock_size" in encode(KEY_AMONG_TOKENS)
    event = VLLM_STORED | {"token_ids": [1, *KEY_AMONG_TOKENS, 5, *range(30)]}
    assert decode_batch(encode([1.0, [event], 0])) == decode_batch(encode([1.0, [VLLM_STORED], 0]))


@given(st.sampled_from(sorted(BATCHES)), st.integers(0, 400), st.integers(0, 255))
def test_damaged_batches_never_stop_a_reader(name: str, at: int, byte: int) -> None:
    """A real batch with one byte changed, or cut short, is read or refused."""
    payload = bytearray(msgspec.msgpack.encode(BATCHES[name]))
    cut = bytes(payload[: at % len(payload)])
    payload[at % len(payload)] = byte
    for damaged in (bytes(payload), cut):
        try:
            decode_batch(damaged)
        except ValueError:
            continue
