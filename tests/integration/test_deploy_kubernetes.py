"""The overlays of Kubernetes: rendered, held against the schemas, and their commands run.

Rendering needs kubectl, which does it offline. Without it the parts are judged as they stand.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec.yaml
import pytest

from k2store.config import Settings, load
from k2store.config.table import rows
from k2store.node.process import PARTING_S
from tests.architecture.tree import ROOT
from tests.contract.etcd_cluster import free_ports
from tests.integration.deployed_node import Running, get, k2, running

FOLDER = ROOT / "deploy/kubernetes"
BASE = FOLDER / "base"
REGIONS = ("fra", "iad", "sin")
VERSIONS = ("1.30", "1.32", "1.37")
VARIABLES = {row.variable for row in rows().values()}

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)

Resource = dict[str, Any]


def resources(text: str) -> list[Resource]:
    """The documents of a stream of YAML."""
    parts = re.split(r"^---$", text, flags=re.MULTILINE)
    return [found for part in parts if (found := msgspec.yaml.decode(part)) is not None]


@cache
def rendered(region: str) -> list[Resource]:
    """An overlay as `kubectl apply -k` would send it."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "overlays" / region)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return resources(done.stdout)


def one(kind: str, found: list[Resource], name: str = "") -> Resource:
    """The one resource of a kind, and of a name where there are several."""
    (resource,) = [
        each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(name)
    ]
    return resource


def pod(resource: Resource) -> Resource:
    """The pod's specification inside of a StatefulSet or CronJob."""
    spec: Resource = resource["spec"]
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: Resource = spec["template"]["spec"]
    return found


# ----------------------------------------------------------------------------- schemas


@needs_kubectl
@pytest.mark.kubectl
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_every_resource_is_one_that_kubernetes_takes(region: str, version: str) -> None:
    """The schemas of the oldest and newest versions take what is rendered, without a field more."""
    found = rendered(region)
    kinds = sorted(resource["kind"] for resource in found)
    assert kinds == sorted(
        ["ConfigMap"] * 3
        + ["Service"] * 2
        + ["CronJob", "PersistentVolumeClaim", "PodDisruptionBudget", "ServiceAccount"]
        + ["StatefulSet"]
    )
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("path", sorted(BASE.glob("*.yaml")), ids=lambda path: path.name)
def test_every_part_is_one_that_kubernetes_takes(path: Path) -> None:
    """The files of the base stand for themselves, and the list of them is complete."""
    listed = msgspec.yaml.decode((BASE / "kustomization.yaml").read_bytes())["resources"]
    assert {each.name for each in BASE.glob("*.yaml")} - {"kustomization.yaml"} == set(listed)
    if path.name != "kustomization.yaml":
        for resource in resources(path.read_text()):
            kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)


def test_the_schemas_do_refuse() -> None:
    """A misspelt field and a wrong type are seen."""
    (budget,) = resources((BASE / "poddisruptionbudget.yaml").read_text())
    for field, value in (("maxUnavialable", 1), ("maxUnavailable", ["1"])):
        wrong = budget | {"spec": budget["spec"] | {field: value}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


# ----------------------------------------------------------------------------- overlays


def test_overlays_differ_in_their_region_only() -> None:
    """One overlay is another with the region's name replaced."""
    texts = {
        region: (FOLDER / "overlays" / region / "kustomization.yaml").read_text()
        for region in REGIONS
    }
    for region, text in texts.items():
        assert re.sub(rf"\b{region}\b", "fra", text) == texts["fra"]


@needs_kubectl
@pytest.mark.kubectl
@pytest.mark.parametrize("region", REGIONS)
def test_what_is_named_is_there(region: str) -> None:
    """Settings, accounts, claims and services that a pod names are rendered; labels are chosen."""
    found = rendered(region)
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    assert all(name.startswith(f"{region}-") for _, name in names)
    nodes = one("StatefulSet", found)
    assert ("Service", nodes["spec"]["serviceName"]) in names
    for spec in (pod(nodes), pod(one("CronJob", found))):
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        (container,) = spec["containers"]
        for source in container["envFrom"]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in names
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {each["metadata"]["name"] for each in nodes["spec"]["volumeClaimTemplates"]}
        assert mounted <= {volume["name"] for volume in spec["volumes"]} | claimed
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] == f"{region}-k2store-tls"
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in names
        assert container["image"].startswith("registry.example.com/k2store:")
    labels = nodes["spec"]["template"]["metadata"]["labels"].items()
    for kind, name in (("Service", "-k2store"), ("Service", "-peers")):
        assert one(kind, found, name)["spec"]["selector"].items() <= labels
    budget = one("PodDisruptionBudget", found)["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels
    assert nodes["spec"]["selector"]["matchLabels"].items() <= labels
    assert budget["maxUnavailable"] == 1
    assert one("Service", found, "-peers")["spec"]["publishNotReadyAddresses"] is True
    backup = one("CronJob", found)["spec"]["jobTemplate"]["spec"]["template"]["metadata"]
    assert not one("Service", found, "-k2store")["spec"]["selector"].items() <= (
        backup["labels"].items()
    ), "the pods of a backup serve nobody"


def nodes_of_base() -> Resource:
    """The StatefulSet as the base has it."""
    return one("StatefulSet", resources((BASE / "statefulset.yaml").read_text()))


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    """Not root, no capabilities, a root that cannot be written, no token of Kubernetes."""
    cron = one("CronJob", resources((BASE / "backup.yaml").read_text()))
    for spec in (pod(nodes_of_base()), pod(cron)):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        inside = container["securityContext"]
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["readOnlyRootFilesystem"] is True
        assert inside["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_a_pod_has_the_time_that_a_drain_takes() -> None:
    """Kubernetes does not kill a node that drains by the settings it was given."""
    settings = load(BASE / "k2.toml", env={}).settings
    grace_s = pod(nodes_of_base())["terminationGracePeriodSeconds"]
    assert grace_s > settings.node.drain_timeout.seconds + PARTING_S
    assert settings.node.drain_timeout.seconds >= Settings().node.drain_timeout.seconds


def test_voters_are_spread_over_machines_and_zones() -> None:
    """Two pods never share a machine; zones are kept even where that is possible."""
    spread = {
        each["topologyKey"]: each["whenUnsatisfiable"]
        for each in pod(nodes_of_base())["topologySpreadConstraints"]
    }
    assert spread == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }


# ----------------------------------------------------------------------------- running it


def resolved(container: Resource, name: str, more: dict[str, str]) -> dict[str, str]:
    """A container's environment as the kubelet makes it for a pod of that name.

    References see what stands above them in `env`, and nothing of `envFrom`.
    """
    above: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            value = name
        else:
            value = re.sub(r"\$\((\w+)\)", lambda found: above[found[1]], variable["value"])
        above[variable["name"]] = value
    return more | above


def test_every_variable_of_a_pod_is_a_setting() -> None:
    """Pods set what the loader knows, and `k2` finds the mounted file without being told."""
    cron = one("CronJob", resources((BASE / "backup.yaml").read_text()))
    for spec in (pod(nodes_of_base()), pod(cron)):
        (container,) = spec["containers"]
        assert {each["name"] for each in container["env"]} <= VARIABLES | {"K2_CONFIG"}
    overlay = msgspec.yaml.decode((FOLDER / "overlays/fra/kustomization.yaml").read_bytes())
    for generator in overlay["configMapGenerator"]:
        assert {line.partition("=")[0] for line in generator["literals"]} <= VARIABLES
    assert tomllib.loads((BASE / "k2.toml").read_text())["clock"]["source"] == "kernel"


@needs_kubectl
@pytest.mark.kubectl
@pytest.mark.parametrize("region", REGIONS)
def test_the_pods_of_a_region_know_who_and_where_they_are(region: str) -> None:
    """What a pod is told, by its rendered environment, is what a node would start with.

    It advertises the name that External DNS gives it, which is the one its certificate is made for.
    """
    found = rendered(region)
    nodes = one("StatefulSet", found)
    (container,) = pod(nodes)["containers"]
    name = f"{nodes['metadata']['name']}-2"
    configured: Resource = one("ConfigMap", found, _source(container))["data"]
    environment = resolved(container, name, configured)
    settings = load(BASE / "k2.toml", env=environment).settings
    assert (settings.node.name, settings.node.region) == (name, region)
    domain = one("Service", found, "-peers")["metadata"]["annotations"][
        "external-dns.alpha.kubernetes.io/hostname"
    ]
    assert settings.cluster.advertise == f"{name}.{domain}:7400"
    assert settings.cluster.control.startswith("etcds://")
    assert settings.tls.certificate == f"/etc/k2store/tls/{name}.pem"
    (backup,) = pod(one("CronJob", found))["containers"]
    client = load(
        BASE / "k2.toml",
        env=resolved(backup, "backup", one("ConfigMap", found, _source(backup))["data"]),
    ).settings.client
    service = one("Service", found, f"{region}-k2store")["metadata"]["name"]
    assert client.endpoint == f"k2://{service}:7400"


def _source(container: Resource) -> str:
    (source,) = container["envFrom"]
    name: str = source["configMapRef"]["name"]
    return name


def test_the_pod_serves_is_probed_and_drains(tmp_path: Path) -> None:
    """Command, environment, probes, preStop hook and backup of a pod, against a real node."""
    (container,) = pod(nodes_of_base())["containers"]
    name = "fra-k2store-0"
    (tmp_path / "settings").mkdir()
    named = (f"--node={name}={name}.fra.k2store.example.com,fra-k2store", "--client=backup")
    made = k2(tmp_path, ("k2", "certificates", "make", f"{tmp_path}/tls", *named))
    assert made.returncode == 0, made.stderr
    settings = (BASE / "k2.toml").read_text().replace("/etc/k2store", str(tmp_path))
    # Whether this machine's clock is synchronised is not the question here.
    settings = settings.replace('"kernel"', '"declared"')
    (tmp_path / "settings/k2.toml").write_text(settings)
    environment = {
        key: value.replace("/etc/k2store", str(tmp_path))
        for key, value in resolved(container, name, {"K2_NODE__REGION": "fra"}).items()
    }
    with running(tmp_path, ("k2", *container["args"]), environment=environment) as node:
        assert (node.ready["node"], node.ready["region"]) == (name, "fra")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            page = container[probe]["httpGet"]
            assert page["port"] == "admin"
            assert get(node.admin, page["path"])[0] == 200, probe
        here = environment | {"K2_CLIENT__ENDPOINT": f"k2://{node.address}"}
        written = k2(tmp_path, ("k2", "put", "key", "value"), here)
        assert written.returncode == 0, written.stderr
        _backs_up(tmp_path, node.address)
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        drained = k2(tmp_path, hook, here)
        assert drained.returncode == 0, drained.stderr
        assert get(node.admin, "/readyz")[0] in {0, 503}
        assert node.ended() == 0


@contextmanager
def regions_over_etcd(folder: Path) -> Iterator[dict[str, tuple[Running, dict[str, str]]]]:
    """A pod of each overlay, as a process with its rendered environment, over an etcd with TLS.

    Names in DNS become loopback and paths move; the scheme, the one authority for nodes, etcd and
    commands, and who advertises what are as rendered. Gives each region's node, and what a command
    has that is run inside of its pod.
    """
    names = {region: f"{region}-k2store-0" for region in REGIONS}
    made = k2(
        folder,
        ("k2", "certificates", "make", f"{folder}/tls", "--node=etcd-0=127.0.0.1")
        + tuple(f"--node={name}=127.0.0.1" for name in names.values()),
    )
    assert made.returncode == 0, made.stderr
    client, peer, *ports = free_ports(2 + len(REGIONS))
    (folder / "settings").mkdir()
    settings = (BASE / "k2.toml").read_text().replace('"kernel"', '"declared"')
    (folder / "settings/k2.toml").write_text(settings)
    with etcd_with_tls(folder, client, peer), ExitStack() as stack:
        up = {}
        for region, port in zip(REGIONS, ports, strict=True):
            found = rendered(region)
            (container,) = pod(one("StatefulSet", found))["containers"]
            configured: Resource = one("ConfigMap", found, _source(container))["data"]
            told = {
                key: value.replace("/etc/k2store", str(folder))
                for key, value in resolved(container, names[region], configured).items()
            }
            assert told["K2_CLUSTER__CONTROL"].startswith("etcds://")
            told["K2_CLUSTER__CONTROL"] = f"etcds://127.0.0.1:{client}"
            told["K2_CLUSTER__ADVERTISE"] = f"127.0.0.1:{port}"
            told["K2_NODE__LISTEN"] = f"127.0.0.1:{port}"
            told["K2_CLIENT__ENDPOINT"] = f"k2://127.0.0.1:{port}"
            (folder / region).mkdir()
            command = ("k2", *container["args"])
            node = stack.enter_context(running(folder / region, command, environment=told))
            up[region] = node, told
        yield up


over_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


def said(folder: Path, environment: dict[str, str], *words: str) -> str:
    """What a command prints that must not fail."""
    done = k2(folder, ("k2", *words), environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_kubectl
@over_etcd
@pytest.mark.kubectl
@pytest.mark.etcd
def test_the_regions_are_one_cluster_over_etcd(tmp_path: Path) -> None:
    """What the overlays say makes nodes that find each other: written in one, read in another."""
    with regions_over_etcd(tmp_path) as up:
        init = ("regions", "init", "--nodes=3", "--keyspace=default:region:fra", "--json")
        made = json.loads(said(tmp_path, up["fra"][1], *init))
        assert len(made["partitions"][0]["voters"]) == len(REGIONS)
        said(tmp_path, up["iad"][1], "put", "key", "value")
        assert said(tmp_path, up["sin"][1], "get", "key") == "value"


@needs_kubectl
@over_etcd
@pytest.mark.kubectl
@pytest.mark.etcd
@pytest.mark.slow
def test_a_region_is_lost_and_comes_back(tmp_path: Path) -> None:
    """docs/deployment.md, keyspaces that survive a region: others go on, it catches up again."""
    with regions_over_etcd(tmp_path) as up:
        here = up["iad"][1] | {"K2_CLIENT__DEADLINE": "25s"}
        init = ("regions", "init", "--nodes=3", "--keyspace=default:region:fra", "--quiet")
        said(tmp_path, here, *init)
        said(tmp_path, up["fra"][1], "put", "key", "value")
        lost, environment = up["fra"]
        lost.process.kill()
        lost.ended()
        assert said(tmp_path, here, "get", "key") == "value"
        said(tmp_path, here, "put", "key", "newer")
        (container,) = pod(one("StatefulSet", rendered("fra")))["containers"]
        command = ("k2", *container["args"])
        with running(tmp_path / "fra", command, environment=environment) as back:
            assert get(back.admin, "/readyz")[0] == 200
            patient = environment | {"K2_CLIENT__DEADLINE": "25s"}
            assert said(tmp_path, patient, "get", "key") == "newer"


@needs_kubectl
@over_etcd
@pytest.mark.kubectl
@pytest.mark.etcd
@pytest.mark.slow
def test_a_rolling_upgrade_stops_no_writes(tmp_path: Path) -> None:
    """docs/deployment.md: each node in turn is drained by its hook and started; others take writes."""
    patience = {"K2_CLIENT__DEADLINE": "25s"}
    with regions_over_etcd(tmp_path) as up, ExitStack() as again:
        init = ("regions", "init", "--nodes=3", "--keyspace=default:region:fra", "--quiet")
        said(tmp_path, up["fra"][1], *init)
        for region, other in (("sin", "iad"), ("iad", "fra"), ("fra", "sin")):
            node, environment = up[region]
            (container,) = pod(one("StatefulSet", rendered(region)))["containers"]
            said(tmp_path, environment, *container["lifecycle"]["preStop"]["exec"]["command"][1:])
            assert node.ended() == 0
            said(tmp_path, up[other][1] | patience, "put", "upgraded", region)
            command = ("k2", *container["args"])
            back = again.enter_context(running(tmp_path / region, command, environment=environment))
            assert get(back.admin, "/readyz")[0] == 200
            assert said(tmp_path, environment | patience, "get", "upgraded") == region


@over_etcd
@pytest.mark.kubectl
@pytest.mark.etcd
@pytest.mark.slow
def test_the_runbook_of_a_lost_region(tmp_path: Path) -> None:
    """docs/deployment.md: a home is killed, another is promoted, writes go on, the region returns."""
    with regions_over_etcd(tmp_path) as up:
        here = up["iad"][1]
        said(
            tmp_path, here, "regions", "init", "--nodes=3", "--keyspace=default:zone:fra", "--quiet"
        )
        stamp = int(said(tmp_path, up["fra"][1], "put", "key", "value"))
        for region in ("iad", "sin"):
            _until_seen(tmp_path, up[region][1], stamp)
        lost, _ = up["fra"]
        lost.process.kill()
        lost.ended()
        written = k2(tmp_path, ("k2", "put", "other", "x", "--timeout", "1s"), here)
        assert written.returncode != 0, "nobody leads while the only voter is gone"
        said(tmp_path, here, "regions", "promote", "fra", "--it-is-off")
        assert said(tmp_path, here, "get", "key") == "value"
        said(tmp_path, here, "put", "key", "newer")
        assert said(tmp_path, up["sin"][1], "get", "key") == "newer"
        said(tmp_path, here, "regions", "return", "fra")
        (container,) = pod(one("StatefulSet", rendered("fra")))["containers"]
        with running(
            tmp_path / "fra", ("k2", *container["args"]), environment=up["fra"][1]
        ) as back:
            assert get(back.admin, "/readyz")[0] == 200
            assert said(tmp_path, up["fra"][1], "get", "key") == "newer"


def _until_seen(folder: Path, environment: dict[str, str], stamp: int) -> None:
    """Return when a node's own copies are final up to a stamp: what came later is given up."""
    deadline_s = time.monotonic() + 60
    while True:
        status = json.loads(said(folder, environment, "status", "--json"))
        if all(int(one["safe"]) >= stamp for one in status["partitions"]):
            return
        assert time.monotonic() < deadline_s, status


@contextmanager
def etcd_with_tls(folder: Path, client: int, peer: int) -> Iterator[None]:
    """One member of etcd that asks every client for a certificate; ends with the block."""
    pair = ("--cert-file", f"{folder}/tls/etcd-0.pem", "--key-file", f"{folder}/tls/etcd-0.key")
    command = [
        "etcd",
        *("--data-dir", str(folder / "etcd"), "--logger", "zap", "--log-level", "error"),
        *("--listen-client-urls", f"https://127.0.0.1:{client}"),
        *("--advertise-client-urls", f"https://127.0.0.1:{client}"),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-cluster", f"default=http://127.0.0.1:{peer}"),
        *(*pair, "--client-cert-auth", "--trusted-ca-file", f"{folder}/tls/authority.pem"),
    ]
    with (folder / "etcd.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def _backs_up(folder: Path, address: str) -> None:
    """Run the command of the backup's job as its pod would."""
    cron = one("CronJob", resources((BASE / "backup.yaml").read_text()))
    (container,) = pod(cron)["containers"]
    shell, option, line = container["command"]
    assert (shell, option) == ("sh", "-c")
    (folder / "backups").mkdir()
    file = folder / "backups" / "Mon.backup"
    words = line.removeprefix("exec ").replace('"/backups/$(date -u +%a).backup"', str(file))
    environment = {
        key: value.replace("/etc/k2store", str(folder))
        for key, value in resolved(container, "backup", {}).items()
    }
    done = k2(folder, words.split(), environment | {"K2_CLIENT__ENDPOINT": f"k2://{address}"})
    assert done.returncode == 0, done.stderr
    assert file.exists()


@pytest.mark.promtool
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_scrape_job_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    """promtool takes the job, whose port name is the pod's and whose labels are the alerts'."""
    text = (FOLDER / "scrape.yaml").read_text()
    (job,) = msgspec.yaml.decode(text)["scrape_configs"]
    (discovered,) = job["kubernetes_sd_configs"]
    assert discovered["selectors"][0]["label"] == "app.kubernetes.io/name=k2store"
    assert {each.get("target_label") for each in job["relabel_configs"]} == {None, "node", "region"}
    ports = {each["name"] for each in pod(nodes_of_base())["containers"][0]["ports"]}
    assert {each["regex"] for each in job["relabel_configs"] if "regex" in each} <= ports
    # The distribution's build knows no discovery through Kubernetes; the rest of the job it judges.
    del job["kubernetes_sd_configs"]
    path = tmp_path / "prometheus.yaml"
    path.write_bytes(msgspec.yaml.encode({"scrape_configs": [job]}))
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
