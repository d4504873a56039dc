"""`./k2 fuzz`: coverage-guided fuzzing of everything that reads bytes from outside.

    ./k2 fuzz                      each target for a minute
    ./k2 fuzz log keys --seconds 600
    ./k2 fuzz --keep               add the inputs that reached new code to tests/fuzz/corpus/

Needs atheris, which `./k2` installs for this verb alone. Each target runs in a process of its own,
because what it finds may well be a hang or an abort. The kept inputs are run by `./k2 test`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"
PACKAGES = ["jepsen_like", "k2store", "kv_pool", "mvcc", "replication", "truetime", "tests"]
NAMES = ("session", "records", "keys", "log", "history", "files")
INPUT_BYTES_MAX = 4096
HANG_S = 20


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)  # noqa: T201 - this is a command


def fuzz_one(name: str, folder: str, flags: list[str]) -> None:
    """In the process of one target: instrument, import, and never come back."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        from tests.fuzz.targets import TARGETS

    target = next(each for each in TARGETS if each.name == name)
    if not any("merge" in flag for flag in flags):
        for seed in target.seeds():
            (Path(folder) / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)
    # A merge starts itself again and again, by this line.
    itself = f"{sys.executable} -m tests.fuzz.run --one {name}"
    atheris.Setup([itself, folder, *flags], target.feed)
    atheris.Fuzz()


def command(name: str, folder: Path, *flags: str) -> list[str]:
    """This file again, as the process of one target."""
    return [sys.executable, "-m", "tests.fuzz.run", "--one", name, str(folder), *flags]


def run(name: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target; whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="k2-fuzz-") as scratch:
        folder, crashes = Path(scratch) / "corpus", Path(scratch) / "crashes"
        folder.mkdir()
        crashes.mkdir()
        kept = CORPUS / name
        kept.mkdir(parents=True, exist_ok=True)
        for path in kept.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        say(f"── {name}, {seconds} s, from {len(list(kept.iterdir()))} kept inputs")
        began = time.monotonic()
        done = subprocess.run(
            command(
                name,
                folder,
                f"-max_total_time={seconds}",
                f"-max_len={INPUT_BYTES_MAX}",
                f"-timeout={HANG_S}",
                f"-artifact_prefix={crashes}/",
                "-print_final_stats=1",
            ),
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        found = sorted(crashes.iterdir())
        if done.returncode != 0 or found:
            say(done.stderr[-6000:])
            for path in found:
                (kept / path.name).write_bytes(path.read_bytes())
                say(f"   FAILED on {kept / path.name}: mend the code and keep the file")
            return False
        runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
        coverage = re.findall(r"cov: (\d+)", done.stderr)
        say(
            f"   ok: {runs[1] if runs else '?'} inputs, {coverage[-1] if coverage else '?'} places"
            f" reached, in {time.monotonic() - began:.0f} s"
        )
        if keep:
            merge(name, folder, kept)
        return True


def merge(name: str, folder: Path, kept: Path) -> None:
    """Keep as few inputs as reach all that is reached."""
    with tempfile.TemporaryDirectory(prefix="k2-fuzz-") as scratch:
        merged = command(
            name, Path(scratch), str(folder), "-merge=1", f"-max_len={INPUT_BYTES_MAX}"
        )
        subprocess.run(merged, cwd=ROOT, check=True, capture_output=True)
        crashes = [path for path in kept.iterdir() if path.name.startswith("crash-")]
        for path in kept.iterdir():
            if path not in crashes:
                path.unlink()
        for path in Path(scratch).iterdir():
            data = path.read_bytes()
            (kept / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        say(f"   kept {len(list(kept.iterdir()))} inputs in {kept.relative_to(ROOT)}")


def main(arguments: list[str]) -> int:
    """Every target asked for; 5 where one found something, as `k2` answers a failed check."""
    if arguments[:1] == ["--one"]:
        fuzz_one(arguments[1], arguments[2], arguments[3:])
    parser = argparse.ArgumentParser(prog="./k2 fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="*", choices=[[], *NAMES], help="which; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default 60")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach new code")
    chosen = parser.parse_args(arguments)
    failed = [
        name for name in chosen.target or NAMES if not run(name, chosen.seconds, keep=chosen.keep)
    ]
    say("FAILED: " + ", ".join(failed) if failed else "nothing was found")
    return 5 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
