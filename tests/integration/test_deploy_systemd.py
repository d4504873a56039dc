"""The units of systemd: judged by its own tools, and their commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k2store.config import Duration, Settings
from k2store.errors import Corruption, Rejected
from k2store.node.process import PARTING_S
from tests.architecture.tree import ROOT
from tests.integration.deployed_node import ALONE, TIMEOUT_S, get, k2, running

UNITS = ROOT / "deploy/systemd"
NODE = "k2store@.service"
PROGRAM = "/opt/k2store/bin/k2"

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd's tools are not installed"
)

# Directives by section; "many" may stand several times in a unit, each adding to the one before.
KNOWN = {
    "Unit": "Description After Wants AssertPathExists StartLimitIntervalSec StartLimitBurst",
    "Service": "Type NotifyAccess User Group StateDirectory StateDirectoryMode WorkingDirectory "
    "ExecStartPre ExecStart KillMode KillSignal TimeoutStopSec TimeoutStartSec Restart RestartSec "
    "RestartPreventExitStatus LimitNOFILE OOMScoreAdjust Nice IOSchedulingClass NoNewPrivileges "
    "CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp "
    "PrivateDevices PrivateUsers ProtectHostname ProtectKernelLogs ProtectKernelModules "
    "ProtectKernelTunables ProtectControlGroups ProtectProc ProcSubset RestrictAddressFamilies "
    "RestrictNamespaces RestrictRealtime RestrictSUIDSGID LockPersonality "
    "MemoryDenyWriteExecute RemoveIPC UMask SystemCallArchitectures SystemCallErrorNumber",
    "Timer": "OnCalendar RandomizedDelaySec Persistent",
    "Install": "WantedBy",
}
MANY = {"Environment", "EnvironmentFile", "SystemCallFilter"}


def unit(name: str) -> dict[str, list[str]]:
    """Values by `Section.Directive`; a line that systemd would ignore or merge is an error."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
            assert section in KNOWN, line
            continue
        directive, equals, value = line.partition("=")
        path = f"{section}.{directive}"
        assert equals, line
        assert directive in KNOWN[section].split() or directive in MANY, line
        assert path not in found or directive in MANY, f"{line}: said twice"
        found.setdefault(path, []).append(value)
    return found


def placed(text: str, folder: Path, instance: str) -> str:
    """A value of a unit with its specifiers resolved, and its folders below another root."""
    text = text.replace("%i", instance).replace("%%", "%").replace("$$", "$")
    for path in ("/etc/k2store", "/var/lib/k2store-backup", "/var/lib/k2store"):
        text = re.sub(rf"(?<![\w/]){path}(?![\w-])", f"{folder}{path}", text)
    return text


def environment_of(name: str, folder: Path, instance: str) -> dict[str, str]:
    """What a unit adds to the environment: its own lines, then those of its file."""
    found = dict(
        placed(line, folder, instance).split("=", 1)
        for line in unit(name).get("Service.Environment", ())
    )
    (file,) = unit(name)["Service.EnvironmentFile"]
    assert file.startswith("-"), "the file may be missing"
    path = Path(placed(file[1:], folder, instance))
    for line in path.read_text().splitlines() if path.exists() else ():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = value
    return found


def installed(folder: Path, instance: str) -> None:
    """Lay the folders and files that the units want, as deploy/README.md says."""
    etc = folder / "etc/k2store"
    (etc / "tls").mkdir(parents=True)
    (folder / "var/lib/k2store" / instance).mkdir(parents=True)
    (folder / "var/lib/k2store-backup").mkdir()
    made = k2(
        folder, ("k2", "certificates", "make", f"{etc}/tls", "--node", f"{instance}=fra-1.lan")
    )
    assert made.returncode == 0, made.stderr
    settings = (UNITS / f"{instance}.toml").read_text().replace("/etc/k2store", str(etc))
    # This machine's clock may be synchronised or not; what the unit does is not about that.
    (etc / f"{instance}.toml").write_text(settings.replace('"kernel"', '"declared"'))
    (etc / f"{instance}.env").write_text((UNITS / f"{instance}.env").read_text())


def test_the_unit_runs_a_node_and_ends_it(tmp_path: Path) -> None:
    """Its commands, environment and files serve over TLS; its signal drains; its backup works.

    The node runs without memory that is both writable and executable, where the kernel can
    forbid that: MemoryDenyWriteExecute= in the unit is not a promise.
    """
    instance = "fra-1"
    installed(tmp_path, instance)
    mine = unit(NODE)
    environment = environment_of(NODE, tmp_path, instance)
    (before,) = mine["Service.ExecStartPre"]
    (start,) = mine["Service.ExecStart"]
    checked = k2(tmp_path, shlex.split(placed(before, tmp_path, instance)), environment)
    assert checked.returncode == 0, checked.stderr
    ports = {"K2_NODE__LISTEN": "127.0.0.1:0", "K2_ADMIN__LISTEN": "127.0.0.1:0"}
    ports |= ALONE
    forbid = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "
    before_it = (sys.executable, "-c", forbid + "os.execv(sys.argv[1], sys.argv[1:])")
    command = shlex.split(placed(start, tmp_path, instance))
    with (
        supervisor() as (ear, told),
        running(
            tmp_path, command, environment=environment | ports | told, before=before_it
        ) as node,
    ):
        assert mine["Service.Type"] == ["notify"]
        assert ear.recv(4096).decode().startswith(f"READY=1\nSTATUS={instance} (fra) serves")
        assert node.ready["node"] == instance
        assert node.ready["region"] == "fra"
        assert node.ready["data"] == f"{tmp_path}/var/lib/k2store/{instance}"
        assert get(node.admin, "/readyz") == (200, "SERVING\n")
        client = ("k2", "--config", f"{tmp_path}/etc/k2store/{instance}.toml")
        here = {"K2_CLIENT__ENDPOINT": f"k2://{node.address}"}
        written = k2(tmp_path, (*client, "put", "key", "value"), here)
        assert written.returncode == 0, written.stderr
        _backs_up(tmp_path, instance, here)
        kill = signal.Signals[mine["Service.KillSignal"][0]]
        node.process.send_signal(kill)
        assert ear.recv(4096) == b"STOPPING=1"
        assert node.ended() == 0
    assert '"event": "node.draining"' in (tmp_path / "log").read_text()


@contextmanager
def supervisor() -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """What systemd listens with, and how it says so to what it starts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.settimeout(TIMEOUT_S)
        name = f"k2store-test-{os.getpid()}"
        ear.bind(f"\0{name}")
        yield ear, {"NOTIFY_SOCKET": f"@{name}"}


def test_a_supervisor_that_is_gone_stops_no_node(tmp_path: Path) -> None:
    """A node that cannot tell its supervisor says so in its log and serves."""
    nobody = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with running(tmp_path, environment=nobody) as node:
        assert get(node.admin, "/readyz")[0] == 200
        node.process.terminate()
        assert node.ended() == 0
    assert "supervisor.untold" in (tmp_path / "log").read_text()


def _backs_up(folder: Path, instance: str, here: dict[str, str]) -> None:
    """Run the shell line of the backup's unit against the running node."""
    (line,) = unit("k2store-backup@.service")["Service.ExecStart"]
    program = folder / "k2"
    words = shlex.join([sys.executable, "-c", "from k2store.cli.group import main; main()"])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o700)
    command = shlex.split(placed(line, folder, instance).replace(PROGRAM, str(program)))
    assert command[0] == "/bin/sh"
    for _ in range(2):  # the second replaces the first: last week's
        done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (file,) = (folder / "var/lib/k2store-backup").iterdir()
    assert re.fullmatch(rf"{instance}-[A-Z][a-z][a-z]\.backup", file.name)
    assert k2(folder, ("k2", "restore", str(file), "--verify-only")).returncode == 0


def test_what_no_restart_mends_is_not_restarted() -> None:
    """The exit codes that stop the restarts are those of refused settings and of damage."""
    (codes,) = unit(NODE)["Service.RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {Rejected.exit_code, Corruption.exit_code}
    assert unit(NODE)["Service.Restart"] == ["on-failure"]


def test_the_unit_waits_longer_than_a_drain() -> None:
    """systemd does not kill a node that is still draining by its defaults."""
    stop = Duration.parse(unit(NODE)["Service.TimeoutStopSec"][0]).seconds
    assert stop > Settings().node.drain_timeout.seconds + PARTING_S


def test_the_clock_may_be_read_and_not_set() -> None:
    """The kernel's estimate of the clock can be asked for; the capability to set it is gone."""
    mine = unit(NODE)
    assert mine["Service.CapabilityBoundingSet"] == [""]
    assert set(mine["Service.SystemCallFilter"][-1].split()) == {"adjtimex", "clock_adjtime"}
    assert "Service.ProtectClock" not in mine


def test_a_node_has_its_files_to_itself() -> None:
    """The account of the units is the one that sysusers makes, and root owns the settings."""
    user = re.findall(r"^u (\w+) ", (UNITS / "sysusers.d/k2store.conf").read_text(), re.MULTILINE)
    for name in (NODE, "k2store-backup@.service"):
        assert unit(name)["Service.User"] == unit(name)["Service.Group"] == user
    folders = re.findall(
        r"^d (\S+) +(\d+) (\w+) (\w+) -$",
        (UNITS / "tmpfiles.d/k2store.conf").read_text(),
        re.MULTILINE,
    )
    assert [folder[1:] for folder in folders] == [("0750", "root", *user)] * 2
    assert [folder[0] for folder in folders] == ["/etc/k2store", "/etc/k2store/tls"]


def test_a_wrong_unit_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser refuses a directive in the wrong section, and one that is said twice."""
    monkeypatch.setattr("tests.integration.test_deploy_systemd.UNITS", tmp_path)
    for text in ("[Unit]\nUser=a\n", "[Service]\nUser=a\nUser=b\n", "[Service]\nUsr=a\n"):
        (tmp_path / NODE).write_text(text)
        with pytest.raises(AssertionError):
            unit(NODE)


@with_systemd
@pytest.mark.systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say; exposure is rated at most 2 of 10."""
    program = tmp_path / "k2"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for name in (NODE, "k2store-backup@.service", "k2store-backup@.timer"):
        unit(name)
        path = tmp_path / name.replace("@", "@fra-1")
        path.write_text((UNITS / name).read_text().replace(PROGRAM, str(program)))
        units.append(str(path))
    verified = analyze("verify", "--man=no", *units)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    security = analyze("security", "--offline=yes", "--threshold=20", units[0])
    assert security.returncode == 0, security.stdout
    broken = tmp_path / "broken.service"
    broken.write_text(Path(units[0]).read_text().replace("ProtectHome=yes", "ProtectHoem=yes"))
    assert "ProtectHoem" in analyze("verify", "--man=no", str(broken)).stderr


@with_systemd
@pytest.mark.systemd
@pytest.mark.root
def test_accounts_and_folders_are_made(tmp_path: Path) -> None:
    """systemd's own tools make the account and the folders below another root."""
    (tmp_path / "etc").mkdir()
    for tool, options, file in (
        ("systemd-sysusers", (), "sysusers.d/k2store.conf"),
        ("systemd-tmpfiles", ("--create",), "tmpfiles.d/k2store.conf"),
    ):
        done = subprocess.run(
            [tool, f"--root={tmp_path}", *options, str(UNITS / file)],
            capture_output=True,
            text=True,
            check=False,
        )
        if "not permitted" in done.stderr or "Permission denied" in done.stderr:
            pytest.skip("needs root")
        assert done.returncode == 0, done.stderr
    assert "k2store:x:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "etc/k2store/tls").stat().st_mode & 0o777 == 0o750


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
