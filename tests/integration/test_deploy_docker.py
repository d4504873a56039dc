"""The image and the compose file: what can be judged and run without a container engine.

The image itself is not built here: no engine, and no registry for its base. What it would run is
run: the build from exactly the files it copies, its command, and its health check.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec.yaml

from k2store.config import Duration, Settings, load
from k2store.config.table import rows
from k2store.node.process import PARTING_S
from tests.architecture.test_documents import refusal
from tests.architecture.tree import ROOT, files
from tests.contract.etcd_cluster import free_ports
from tests.integration.deployed_node import CLEAN, get, k2, running

FOLDER = ROOT / "deploy/docker"
VARIABLES = {row.variable for row in rows().values()}


class Step(NamedTuple):
    """One instruction of a Dockerfile, continued lines joined."""

    verb: str
    words: str


def stages() -> list[list[Step]]:
    """The instructions of the Dockerfile, by stage."""
    text = "\n".join(
        line
        for line in (FOLDER / "Dockerfile").read_text().splitlines()
        if not line.startswith("#")
    ).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in filter(None, text.splitlines()):
        verb, _, words = line.partition(" ")
        if verb == "FROM":
            found.append([])
        found[-1].append(Step(verb, words.strip()))
    return found


def only(verb: str, steps: list[Step]) -> str:
    """The words of the one instruction of a kind."""
    (step,) = [step for step in steps if step.verb == verb]
    return step.words


def environment() -> dict[str, str]:
    """What the image sets for its process."""
    return dict(word.split("=", 1) for word in shlex.split(only("ENV", stages()[1])))


def test_the_image_runs_as_nobody_in_particular() -> None:
    """The last stage names a user by number, fixed bases, a health check and the two ports."""
    build, last = stages()
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", only("USER", last))
    for stage in (build, last):
        assert re.fullmatch(r"python:3\.11-slim-\w+( AS build)?", stage[0].words)
    assert only("EXPOSE", last).split() == ["7400", "7401"]
    assert "--chown" not in only("COPY", last), "the program belongs to root"
    assert set(environment()) - {"PATH", "PYTHONDONTWRITEBYTECODE"} <= VARIABLES


def copied() -> Iterator[str]:
    """The paths of the tree that the build copies."""
    for step in stages()[0]:
        if step.verb == "COPY":
            *sources, _ = step.words.split()
            yield from sources


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    """Every copied path exists, and the ignore file lets exactly these through."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in lines
    let_through = sorted(line[1:] for line in lines if line.startswith("!"))
    assert let_through == sorted(copied())
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_the_build_works_from_the_files_it_copies(tmp_path: Path) -> None:
    """The wheel built from these files alone has every module, the command and the extras."""
    context = tmp_path / "context"
    for path in copied():
        for name in files():
            if name == path or name.startswith(f"{path}/"):
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, context / name)
    # The tree's listing leaves the generated wire out.
    shutil.copytree(ROOT / "k2store/v1", context / "k2store/v1", dirs_exist_ok=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*build, "--wheel-dir", str(tmp_path), "."],
        cwd=context,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("k2store-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "k2 = k2store.cli:main" in opened.read(entry_points).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = [
        pattern.removesuffix("*")
        for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    ]
    modules = {path for path in files() if path.endswith(".py") and path.split("/")[0] in folders}
    assert modules - names == set()
    install = [step.words for step in stages()[0] if "--no-build-isolation" in step.words]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", install[0])
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()


def test_the_command_and_the_health_check_of_the_image(tmp_path: Path) -> None:
    """Entry point and command serve; the check passes then, and fails when the node is gone."""
    last = stages()[1]
    command = json.loads(only("ENTRYPOINT", last)) + json.loads(only("CMD", last))
    own = {name: value for name, value in environment().items() if name.startswith("K2_")}
    moved = {
        "K2_NODE__DATA": str(tmp_path / "data"),
        "K2_NODE__LISTEN": own["K2_NODE__LISTEN"].replace("0.0.0.0:7400", "127.0.0.1:0"),
        "K2_ADMIN__LISTEN": own["K2_ADMIN__LISTEN"].replace("0.0.0.0:7401", "127.0.0.1:0"),
    }
    check = json.loads(only("HEALTHCHECK", last).partition("CMD ")[2])
    assert check[0] == "python"
    with running(tmp_path, command, environment=own | moved) as node:
        probe = [sys.executable, check[1], check[2].replace("127.0.0.1:7401", node.admin)]
        assert node.admin in probe[2]
        assert subprocess.run(probe, env=CLEAN, check=False).returncode == 0
        node.process.terminate()
        assert node.ended() == 0
        failed = subprocess.run(probe, env=CLEAN, stderr=subprocess.DEVNULL, check=False)
        assert failed.returncode == 1
    # Logs are JSON, for whoever gathers them.
    assert all(json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines())


# ---------------------------------------------------------------------------------- compose


def compose() -> dict[str, Any]:
    """The compose file."""
    found: dict[str, Any] = msgspec.yaml.decode((FOLDER / "compose.yaml").read_bytes())
    return found


def nodes() -> dict[str, dict[str, Any]]:
    """The services that are nodes."""
    return {
        name: service
        for name, service in compose()["services"].items()
        if "K2_NODE__NAME" in service.get("environment", ())
    }


def test_compose_follows_its_specification(tmp_path: Path) -> None:
    """The schema of the compose specification takes the file, and refuses a broken one."""
    judge = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    broken = tmp_path / "compose.yaml"
    broken.write_text((FOLDER / "compose.yaml").read_text().replace("cap_drop:", "cap_dorp:"))
    for path, code in ((FOLDER / "compose.yaml", 0), (broken, 1)):
        done = subprocess.run([*judge, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr


def test_compose_says_only_what_is_a_setting(tmp_path: Path) -> None:
    """Names, regions and numbers differ; each node's environment is one it would start with."""
    loaded = []
    for name, service in nodes().items():
        given = service["environment"]
        assert given.keys() <= VARIABLES, name
        settings = load(env=environment() | given, path=_empty(tmp_path)).settings
        assert settings.node.name == name == service["hostname"]
        assert settings.cluster.advertise == f"{name}:7400"
        loaded.append(settings)
    assert [settings.node.region for settings in loaded] == ["fra", "iad", "sin"]
    keeper, *others = (settings.cluster for settings in loaded)
    assert keeper.control == "embedded"
    assert {other.control for other in others} == {f"k2://{keeper.advertise}"}


def _empty(folder: Path) -> Path:
    path = folder / "k2.toml"
    path.touch()
    return path


def test_commands_of_compose_exist() -> None:
    """What a service of ours runs instead of a node is a verb with options that it has."""
    given = {
        name: service["command"]
        for name, service in compose()["services"].items()
        if service["image"].startswith("k2store:") and "command" in service
    }
    assert given.keys() == {"certificates", "regions"}
    for command in given.values():
        assert refusal(command) is None, command


def test_compose_opens_nothing_to_the_world() -> None:
    """Ports are published on loopback only, and no two services share one."""
    taken = []
    for service in compose()["services"].values():
        for port in service.get("ports", ()):
            address, host, _ = port.split(":")
            assert address == "127.0.0.1"
            taken.append(host)
    assert len(set(taken)) == len(taken)


def test_compose_gives_a_node_the_time_it_needs() -> None:
    """Containers are not killed during a drain, hold their data, and write nowhere else."""
    for name, service in nodes().items():
        grace = Duration.parse(service["stop_grace_period"]).seconds
        assert grace > Settings().node.drain_timeout.seconds + PARTING_S
        assert service["volumes"] == [f"{name}:/var/lib/k2store", "tls:/etc/k2store/tls:ro"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_everything_that_compose_mounts_is_there() -> None:
    """Mounted paths exist; named volumes, networks and dependencies are declared."""
    document = compose()
    for name, service in document["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), (name, source)
            else:
                assert source in document["volumes"], (name, source)
        assert set(service.get("depends_on", ())) <= document["services"].keys()
        assert set(service["networks"]) <= document["networks"].keys()


def test_prometheus_scrapes_the_nodes_under_their_names() -> None:
    """Each node is a target, by its host name and admin port, labelled as it names itself."""
    document = msgspec.yaml.decode((FOLDER / "prometheus.yaml").read_bytes())
    (job,) = document["scrape_configs"]
    scraped = {
        one["targets"][0]: (one["labels"]["node"], one["labels"]["region"])
        for one in job["static_configs"]
    }
    assert scraped == {
        f"{name}:7401": (name, service["environment"]["K2_NODE__REGION"])
        for name, service in nodes().items()
    }
    assert job["honor_labels"] is True


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    """The provisioned source is the Prometheus of the file; the provider's folder is mounted."""
    services = compose()["services"]
    source = msgspec.yaml.decode((FOLDER / "grafana/datasources/prometheus.yaml").read_bytes())
    (one,) = source["datasources"]
    assert one["url"] == "http://prometheus:9090"
    assert one["isDefault"] is True
    provider = msgspec.yaml.decode((FOLDER / "grafana/dashboards/k2store.yaml").read_bytes())
    folder = provider["providers"][0]["options"]["path"]
    assert f"../grafana:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana" / Path(home).name).exists()
    assert Path(home).parent == Path(folder)


TLS = "/etc/k2store/tls"


def test_compose_is_one_cluster_of_three_regions(tmp_path: Path) -> None:
    """Its commands and environments, as processes: certificates, three nodes, keyspaces, a client.

    Host names become loopback and the folder of certificates moves; nothing else is changed. Name
    and region of each node are in its metrics, as Prometheus is told.
    """
    services = compose()["services"]
    ports = dict(zip(nodes(), free_ports(len(nodes())), strict=True))

    def here(text: str) -> str:
        for name, port in ports.items():
            text = text.replace(f"{name}:7400", f"127.0.0.1:{port}")
        return text.replace(TLS, str(tmp_path / "tls"))

    def once(service: str) -> dict[str, Any]:
        words = [here(word) for word in services[service]["command"]]
        given = {
            key: here(value) for key, value in services[service].get("environment", {}).items()
        }
        done = k2(tmp_path, ("k2", *words, "--json"), given)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    once("certificates")
    with ExitStack() as up:
        environments = {}
        for name, service in nodes().items():
            assert service["depends_on"]["certificates"] == {
                "condition": "service_completed_successfully"
            }
            (tmp_path / name).mkdir()
            given = {key: here(value) for key, value in service["environment"].items()}
            given["K2_NODE__LISTEN"] = f"127.0.0.1:{ports[name]}"
            environments[name] = given
            command = ("k2", "node", "run", "--json")
            node = up.enter_context(running(tmp_path / name, command, environment=given))
            labels = f'node="{name}",region="{given["K2_NODE__REGION"]}"'
            assert labels in get(node.admin, "/metrics")[1]
        (partition,) = once("regions")["partitions"]
        assert partition["keyspace"] == "default"
        assert len(set(partition["voters"])) == len(nodes())
        written = k2(tmp_path, ("k2", "put", "key", "value"), _client(environments, ports, "iad-1"))
        assert written.returncode == 0, written.stderr
        read = k2(tmp_path, ("k2", "get", "key"), _client(environments, ports, "sin-1"))
        assert read.stdout.strip() == "value", read.stderr


def _client(
    environments: dict[str, dict[str, str]], ports: dict[str, int], name: str
) -> dict[str, str]:
    """What a command has that is run inside of a node's container."""
    own = {key: value for key, value in environments[name].items() if "K2_CLIENT__" in key}
    assert own["K2_CLIENT__ENDPOINT"] == "k2://127.0.0.1:7400"
    return own | {"K2_CLIENT__ENDPOINT": f"k2://127.0.0.1:{ports[name]}"}
