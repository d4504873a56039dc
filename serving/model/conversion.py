"""From a GGUF file to weights that all workers of a machine share.

Dequantised weights are written once, as safetensors, into the user's cache, under a name made of the
source's SHA-256: another source is another file, and a file that stands is never written again. Workers
map it, so its pages are in memory once, however many workers there are; what remains private to each is
its own keys, values and activations.

The file appears in one step (written aside, synced, renamed), so a reader never sees half of it, and
of several workers that start at once one converts while the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from k2store.errors import Corruption
from serving.model.config import ModelConfig
from serving.model.gguf import GgufFile
from serving.model.llama import shapes

FORMAT: Final = 1
"""Part of the file's name; another arrangement of the weights is another number."""

_CONFIG: Final = "config"


def cache_folder() -> Path:
    """Where converted weights are kept: ``$XDG_CACHE_HOME/k2store/models``, by default in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "k2store/models"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted(source: Path, folder: Path | None = None) -> tuple[Path, str]:
    """The safetensors file of a GGUF file, made if it is missing, and the source's digest.

    ``Corruption`` where the source is damaged or no Llama.
    """
    folder = folder or cache_folder()
    digest = digest_of(source)
    target = folder / f"{digest}-{FORMAT}.safetensors"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{digest}.lock"):
            if not target.exists():
                file = GgufFile(source)
                write_weights(target, config_of(file), weights_of(file))
    return target, digest


def write_weights(target: Path, config: ModelConfig, weights: dict[str, Tensor]) -> None:
    """Write a model whole or not at all."""
    body = save(weights, {_CONFIG: msgspec.json.encode(config).decode()})
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            part.chmod(0o644)
            part.rename(target)
        except BaseException:
            part.unlink()
            raise


def read_weights(path: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, str]]:
    """Map a model: its shape, its weights and the notes of its file.

    The tensors lie in the mapping: memory is used for what is touched, and shared with every process
    that maps the same file. ``Corruption`` where the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            notes = dict(file.metadata() or {})
            config = msgspec.json.decode(notes.pop(_CONFIG, ""), type=ModelConfig)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, msgspec.MsgspecError, ValueError) as error:
        raise Corruption(f"{path} holds no model: {error}", what="weights") from None
    return config, weights, notes


def write_notes(path: Path, notes: dict[str, object]) -> None:
    """Write what is worth knowing about a model beside it, as JSON for people."""
    path.write_text(json.dumps(notes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def config_of(file: GgufFile) -> ModelConfig:
    """The shape of a Llama in a GGUF file."""
    if file.text("general.architecture") != "llama":
        raise Corruption(
            f"architecture {file.text('general.architecture')!r} is not read", what="gguf"
        )
    width = file.integer("llama.embedding_length")
    query_heads = file.integer("llama.attention.head_count")
    embedding = file.entries.get("token_embd.weight")
    if embedding is None or query_heads < 1 or width % query_heads:
        raise Corruption("the file's embedding or heads do not make a Llama", what="gguf")
    try:
        return ModelConfig(
            vocabulary=embedding.shape[0],
            layers=file.integer("llama.block_count"),
            width=width,
            query_heads=query_heads,
            kv_heads=file.integer("llama.attention.head_count_kv"),
            head_dim=width // query_heads,
            feed_forward=file.integer("llama.feed_forward_length"),
            norm_epsilon=file.number("llama.attention.layer_norm_rms_epsilon"),
            rope_theta=file.number("llama.rope.freq_base"),
            context_tokens=file.integer("llama.context_length"),
        )
    except ValueError as error:
        raise Corruption(f"the file's numbers do not make a Llama: {error}", what="gguf") from None


def weights_of(file: GgufFile) -> dict[str, Tensor]:
    """The weights of a Llama in a GGUF file, under our names."""
    config = config_of(file)
    weights = {
        "embedding": file.tensor("token_embd.weight"),
        "norm": file.tensor("output_norm.weight"),
    }
    for layer in range(config.layers):
        theirs, ours = f"blk.{layer}.", f"layers.{layer}."

        def of(name: str, theirs: str = theirs) -> Tensor:
            return file.tensor(f"{theirs}{name}.weight")

        query = in_halves(of("attn_q"), config.head_dim)
        key = in_halves(of("attn_k"), config.head_dim)
        weights |= {
            f"{ours}attention_norm": of("attn_norm"),
            f"{ours}query_key_value": torch.cat((query, key, of("attn_v"))),
            f"{ours}output": of("attn_output"),
            f"{ours}mlp_norm": of("ffn_norm"),
            f"{ours}gate_up": torch.cat((of("ffn_gate"), of("ffn_up"))),
            f"{ours}down": of("ffn_down"),
        }
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if found != shapes(config):
        raise Corruption("the file's tensors do not have the shapes it states", what="gguf")
    return weights


def in_halves(matrix: Tensor, head_dim: int) -> Tensor:
    """Rows of a head in the order of `Rotary`, whose pairs are ``(i, i + head_dim / 2)``.

    GGUF files have them side by side, ``(2i, 2i + 1)``.
    """
    rows, width = matrix.shape
    if rows % head_dim:
        raise Corruption(f"{rows} rows are no heads of {head_dim}", what="gguf")
    pairs = matrix.view(rows // head_dim, head_dim // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; it ends with its holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
