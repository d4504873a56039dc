"""Who may import whom, stated as contracts, and what a light import really loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from k2store.cli.verbs import places
from tests.architecture.tree import PACKAGES, ROOT, imported_modules, python_files
from tests.run import CHECKS, CONTRACTS

SERVER_ONLY = (
    "grpc_reflection",
    "prometheus_client",
    "rocksdict",
    "structlog",
    "torch",
    "uvloop",
)


def loaded_by(code: str, *suspects: str) -> list[str]:
    """Which of the suspected modules a fresh interpreter holds after running ``code``."""
    probe = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print("loaded:", *sorted(set(sys.modules) & {set(suspects)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()[-1].split()[1:]


def test_import_contracts_hold() -> None:
    """The contracts of pyproject.toml hold over the whole tree."""
    command = dict(CHECKS)[CONTRACTS]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_checker_knows_only_the_public_door() -> None:
    """`jepsen_like` imports of the project nothing but `k2store`, its testing kit and itself; the pool's
    load is a user of the pool, and nothing that judges."""
    wrong = []
    for path in python_files("jepsen_like"):
        load = str(path).startswith("jepsen_like/pool/")
        for module in sorted(imported_modules(path)):
            top, _, rest = module.partition(".")
            if load and (top == "kv_pool" or module.startswith("truetime.timestamp")):
                continue
            if top in PACKAGES and top != "jepsen_like":
                # `from k2store import name` reads as k2store.name: fine where it is no module.
                is_module = (ROOT / "k2store" / rest.split(".")[0]).is_dir() or (
                    ROOT / "k2store" / f"{rest.split('.')[0]}.py"
                ).is_file()
                inside = top == "k2store" and (not is_module or rest.startswith("testing"))
                if not inside and module != "k2store":
                    wrong.append(f"{path}: {module}")
    assert not wrong, "\n".join(wrong)


def test_help_loads_neither_grpc_nor_storage() -> None:
    """`k2 --help` answers without gRPC, protobuf, RocksDB and rich, so it is quick."""
    heavy = (
        "grpc",
        "google.protobuf",
        "rocksdict",
        "rich",
        "uvloop",
        "numpy",
        "structlog",
        "torch",
    )
    assert loaded_by("from k2store.cli import main; main(['--help'])", *heavy) == []


def test_no_verb_loads_torch_before_it_runs() -> None:
    """Importing every verb brings in neither torch nor triton: only what computes waits for them."""
    modules = sorted({place.target.partition(":")[0] for place in places().values()})
    assert "kv_pool.edge.cli" in modules
    code = "import " + ", ".join([*modules, "bench.cli", "serving"])
    assert loaded_by(code, "torch", "triton", "safetensors", "tokenizers") == []


@pytest.mark.parametrize(
    "module", ["k2store", "k2store.client", "k2store.errors", "k2store.config"]
)
def test_light_import_loads_no_server_code(module: str) -> None:
    """What a client imports brings in no storage engine and no server library."""
    assert loaded_by(f"import {module}", *SERVER_ONLY) == []


def test_probe_sees_what_is_loaded() -> None:
    """The probe of these tests does notice a module that is imported."""
    assert loaded_by("import rocksdict", *SERVER_ONLY) == ["rocksdict"]


@pytest.mark.parametrize("seed", ["0", "1"])
def test_cores_import_under_any_hash_seed(seed: str) -> None:
    """Importing every package has no effect that depends on the hash seed, and opens nothing."""
    code = "import truetime, mvcc, replication, kv_pool, threading; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": seed},
    )
    assert done.stdout.split() == ["1"]
