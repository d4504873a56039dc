"""Make what is generated: Python from `proto/`, and the pages that come from tables in the code.

    ./k2 proto     proto/k2store/v1/*.proto  ->  k2store/v1/*_pb2.py and their type stubs
    ./k2 docs      the tables of the code    ->  the pages in PAGES

Generated files are checked in, so that nobody needs a compiler to install the client. With
``--check`` nothing is written and a stale file is an error; the tests run it that way.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GENERATED = Path("k2store/v1")

PAGES: Mapping[str, str] = {
    "deploy/grafana/k2store.json": "k2store.metrics.dashboard:render",
    "deploy/prometheus/alerts.yaml": "k2store.metrics.rules:render_alerts",
    "deploy/prometheus/recordings.yaml": "k2store.metrics.rules:render_recordings",
    "docs/alerts.md": "k2store.metrics.rules:render_page",
    "docs/cli.md": "k2store.cli.pages:commands",
    "docs/configuration.md": "k2store.config.page:render",
    "docs/errors.md": "k2store.cli.pages:errors",
    "docs/limits.md": "k2store.config.limits_page:render",
    "docs/metrics.md": "k2store.metrics.catalogue:render",
}
"""Path of a generated page, and the function without arguments that returns its text."""

PACKAGE_DOCSTRING = '''"""The wire as Python, made from `proto/` by `./k2 proto`; do not edit."""
'''


def plugin(name: str) -> Path:
    """A protoc plugin that stands beside this interpreter, or wherever PATH finds it."""
    beside = Path(sys.executable).parent / name
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing: install the `dev` extra")
    return Path(found)


def compile_protos(into: Path) -> None:
    """Write messages, their stubs, services and their stubs for every file of `proto/`."""
    sources = sorted(path.relative_to(PROTO) for path in PROTO.rglob("*.proto"))
    if not sources:
        raise SystemExit(f"no .proto file under {PROTO}")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO}",
        f"--python_out={into}",
        f"--pyi_out={into}",
        f"--grpc_python_out={into}",
        f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
        f"--mypy_grpc_out=quiet:{into}",
        *map(str, sources),
    ]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("protoc refused the sources; its message stands above")
    package = into / GENERATED
    (package / "__init__.py").write_text(PACKAGE_DOCSTRING, encoding="utf-8")


def generated_code() -> dict[str, str]:
    """Path and text of every generated file of the wire."""
    with tempfile.TemporaryDirectory() as folder:
        compile_protos(Path(folder))
        return {
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in sorted(Path(folder).rglob("*.py*"))
        }


def generated_pages() -> dict[str, str]:
    """Path and text of every page that comes from a table in the code."""
    sys.path.insert(0, str(ROOT))
    pages = {}
    for path, target in PAGES.items():
        module, _, function = target.partition(":")
        pages[path] = getattr(importlib.import_module(module), function)()
    return pages


KINDS: Mapping[str, Callable[[], dict[str, str]]] = {
    "proto": generated_code,
    "docs": generated_pages,
}


def stale(kind: str) -> list[str]:
    """Paths whose checked-in text is not what would be generated, or that should not exist."""
    wanted = KINDS[kind]()
    wrong = [path for path, text in wanted.items() if read(ROOT / path) != text]
    if kind == "proto":
        present = {str(path.relative_to(ROOT)) for path in (ROOT / GENERATED).glob("*.py*")}
        wrong += sorted(present - wanted.keys())
    return wrong


def read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def write(kind: str) -> list[str]:
    """Bring the checked-in files up to date; returns the paths that changed."""
    changed = stale(kind)
    wanted = KINDS[kind]()
    for name in changed:
        path = ROOT / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], encoding="utf-8")
        else:
            path.unlink()
    return changed


def main() -> int:
    """Regenerate one kind, or all; with `--check` only say what is stale."""
    parser = argparse.ArgumentParser(description="make generated code and pages")
    parser.add_argument("kind", choices=[*KINDS, "all"], help="what to make")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    arguments = parser.parse_args()
    kinds = list(KINDS) if arguments.kind == "all" else [arguments.kind]
    if arguments.check:
        wrong = {path: kind for kind in kinds for path in stale(kind)}
        for path, kind in wrong.items():
            print(f"stale: {path} (run: ./k2 {kind})")  # noqa: T201 - this is a command
        return 1 if wrong else 0
    for kind in kinds:
        for path in write(kind):
            print(f"wrote {path}")  # noqa: T201 - this is a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
