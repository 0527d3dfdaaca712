"""What is shipped: manifests of Kubernetes and of Compose, and the Dockerfile, held against the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache, partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import kubernetes_validate
import pytest
import yaml

from app import __version__
from app.api.openapi import document_of
from app.auth.rules import check
from app.config import HELP, Settings, env_of, load_settings
from app.main import NOUNS, create_app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
KUBECTL = shutil.which("kubectl")
SETTINGS = {env_of(name) for name in HELP}
SECRETS = {
    "REDIS_URL": "redis://redis:6379/0",
    "CRONSPACE_ADMIN_KEY": "k" * 32,
    "CRONSPACE_ENCRYPTION_KEYS": "",
}
ADDED_BY_THE_IMAGE = {"CRONSPACE_HOST": "0.0.0.0"}

Object: TypeAlias = dict[str, Any]

every_overlay = [
    pytest.mark.skipif(KUBECTL is None, reason="needs kubectl 1.27 or newer, to render the overlays"),
    pytest.mark.parametrize("overlay", OVERLAYS),
]


def overlays(test: Any) -> Any:
    for mark in every_overlay:
        test = mark(test)
    return test


@cache
def rendered(overlay: str) -> list[Object]:
    """An overlay's objects, as kustomize makes them."""
    assert KUBECTL is not None
    command = [KUBECTL, "kustomize", str(DEPLOY / "overlays" / overlay)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert not made.stderr, made.stderr  # what is deprecated
    return list(yaml.safe_load_all(made.stdout))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [one for one in rendered(overlay) if one["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Object:
    (found,) = [one for one in of_kind(overlay, kind) if one["metadata"]["name"] == name]
    return found


def pods(overlay: str) -> dict[str, Object]:
    """The pod templates by the names of what makes them."""
    makers = of_kind(overlay, "Deployment", "StatefulSet")
    return {one["metadata"]["name"]: one["spec"]["template"] for one in makers}


def ours(overlay: str) -> dict[str, Object]:
    """The containers of our image, by their commands."""
    containers = [pod["spec"]["containers"][0] for pod in pods(overlay).values()]
    return {one["args"][0]: one for one in containers if one["image"].startswith("cronspace:")}


def environment(overlay: str, container: Object) -> dict[str, str]:
    """What a container is given; of a Secret's entry, something that could be in it."""
    found = dict(ADDED_BY_THE_IMAGE)
    for source in container["envFrom"]:
        found |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container["env"]:
        if "value" in one:
            found[one["name"]] = one["value"]
        else:
            found[one["name"]] = SECRETS[one["valueFrom"]["secretKeyRef"]["key"]]
    return found


def settings_of(overlay: str, command: str) -> Settings:
    return load_settings(environment(overlay, ours(overlay)[command]))


@overlays
def test_an_overlay_is_valid(overlay: str) -> None:
    for one in rendered(overlay):
        kubernetes_validate.validate(one, desired_version="1.37", strict=True)


@overlays
def test_both_processes_accept_what_they_are_given(overlay: str) -> None:
    assert set(ours(overlay)) == {"api", "worker"}
    assert check(settings_of(overlay, "api")) == []
    worker = environment(overlay, ours(overlay)["worker"])
    load_settings(worker)
    assert "CRONSPACE_ADMIN_KEY" not in worker


@overlays
def test_no_variable_of_kubernetes_is_taken_for_a_setting(overlay: str) -> None:
    """A Service `cronspace-api` gives pods CRONSPACE_API_PORT, which would be an unknown setting."""
    for name, pod in pods(overlay).items():
        assert pod["spec"]["enableServiceLinks"] is False, name


@overlays
def test_ports_are_those_that_the_processes_listen_on(overlay: str) -> None:
    listens = {
        "cronspace-api": settings_of(overlay, "api").port,
        "cronspace-worker": settings_of(overlay, "worker").worker_port,
    }
    for name, port in listens.items():
        pod = pods(overlay)[name]
        (container,) = pod["spec"]["containers"]
        assert [one["containerPort"] for one in container["ports"]] == [port]
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        policy = named(overlay, "NetworkPolicy", name)
        assert [one["port"] for rule in policy["spec"]["ingress"] for one in rule["ports"]] == [port]
    service = named(overlay, "Service", "cronspace-api")
    (container,) = pods(overlay)["cronspace-api"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    labels = pods(overlay)["cronspace-api"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def probes(container: Object) -> Iterator[str]:
    for kind in ("livenessProbe", "readinessProbe"):
        asked = container[kind]["httpGet"]
        assert asked["port"] == container["ports"][0]["name"]
        yield asked["path"]


@overlays
def test_probes_ask_for_what_is_served(overlay: str) -> None:
    for container in ours(overlay).values():
        assert list(probes(container)) == ["/live", "/ready"]
    pytest.importorskip("app.telemetry", reason="probes come with the metrics")
    assert {"/live", "/ready"} <= set(document_of(NOUNS)["paths"])


@overlays
def test_the_ingress_lets_through_what_is_served_and_neither_metrics_nor_probes(overlay: str) -> None:
    (rule,) = named(overlay, "Ingress", "cronspace")["spec"]["rules"]
    let_through = {one["path"] for one in rule["http"]["paths"]}
    paths = {getattr(route, "path", "") for route in create_app(Settings()).routes}
    for path in let_through:
        assert any(one == path or one.startswith(f"{path}/") for one in paths), path
    for inside in ("/", "/metrics", "/live", "/ready", "/health/detailed"):
        assert inside not in let_through
    body = named(overlay, "Ingress", "cronspace")["metadata"]["annotations"]
    assert body["nginx.ingress.kubernetes.io/proxy-body-size"] == f"{Settings().max_body_bytes // 2**20}m"


@overlays
def test_pods_are_restricted(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
    (account,) = of_kind(overlay, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@overlays
def test_what_a_process_saw_of_redis_outlives_its_container(overlay: str) -> None:
    found = 0
    for name, pod in pods(overlay).items():
        for container in pod["spec"]["containers"]:
            given = {one["name"]: one.get("value") for one in container.get("env", [])}
            if "CRONSPACE_STATE_DIR" in given:
                found += 1
                mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
                volumes = {one["name"] for one in pod["spec"]["volumes"] if "emptyDir" in one}
                assert mounts[given["CRONSPACE_STATE_DIR"]] in volumes, name
                assert pod["spec"]["securityContext"]["fsGroup"] == 1000, name
    assert found == 2


@overlays
def test_secrets_come_by_reference_only(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    for config in of_kind(overlay, "ConfigMap"):
        assert not set(SECRETS) & set(config["data"])
    for container in ours(overlay).values():
        assert not {one["name"] for one in container["env"] if "value" in one} & set(SECRETS)


@overlays
def test_pods_get_longer_to_stop_than_the_processes_take(overlay: str) -> None:
    for command in ("api", "worker"):
        spec = pods(overlay)[f"cronspace-{command}"]["spec"]
        (container,) = spec["containers"]
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = before + settings_of(overlay, command).grace_seconds
        assert spec["terminationGracePeriodSeconds"] >= needed + 10


@overlays
def test_what_is_scaled_has_a_budget_for_disruptions_and_is_spread(overlay: str) -> None:
    for name in ("cronspace-api", "cronspace-worker"):
        own = {"app.kubernetes.io/name": name}
        deployment = named(overlay, "Deployment", name)
        assert "replicas" not in deployment["spec"]  # applying would set back what the HPA chose
        scaler = named(overlay, "HorizontalPodAutoscaler", name)
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert scaler["spec"]["minReplicas"] >= 2
        assert named(overlay, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == own
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        assert all(one["labelSelector"]["matchLabels"] == own for one in spread)


@overlays
def test_every_pod_is_fenced_in_both_directions(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        labels = pod["metadata"]["labels"]
        types: set[str] = set()
        for policy in of_kind(overlay, "NetworkPolicy"):
            if policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items():
                types |= set(policy["spec"]["policyTypes"])
                for rule in policy["spec"].get("ingress", ()):
                    assert rule["from"], f"{policy['metadata']['name']} lets everybody in"
        assert types == {"Ingress", "Egress"}, name


class Peer(NamedTuple):
    """Who is at the other end: a pod of the same namespace by its labels, any of another, or an address."""

    labels: dict[str, str] | None = None
    namespace: str = ""
    address: str = ""

    def is_meant(self, peer: Object) -> bool:
        """Whether a policy's peer names this one."""
        if block := peer.get("ipBlock"):
            if not self.address:
                return False
            ip = ip_address(self.address)
            inside = [ip in ip_network(net) for net in (block["cidr"], *block.get("except", ()))]
            return inside[0] and not any(inside[1:])
        if wanted := peer.get("namespaceSelector"):
            return wanted["matchLabels"] == {"kubernetes.io/metadata.name": self.namespace}
        wanted = peer["podSelector"]["matchLabels"]
        return self.labels is not None and wanted.items() <= self.labels.items()


def let_pass(overlay: str, pod: str, direction: str, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod's policies let it speak to somebody (``egress``), or somebody to it (``ingress``)."""
    labels = pods(overlay)[pod]["metadata"]["labels"]
    for policy in of_kind(overlay, "NetworkPolicy"):
        if not policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items():
            continue
        for rule in policy["spec"].get(direction, ()):
            ports = [(one["port"], one.get("protocol", "TCP")) for one in rule.get("ports", ())]
            other_end = rule["to" if direction == "egress" else "from"]
            if (not ports or (port, protocol) in ports) and any(map(peer.is_meant, other_end)):
                return True
    return False


RESOLVER, INGRESS = Peer(namespace="kube-system"), Peer(namespace="ingress-nginx")
PROMETHEUS, ANYBODY = Peer(namespace="monitoring"), Peer(namespace="default")
PUBLIC, PUBLIC_6 = Peer(address="93.184.215.14"), Peer(address="2606:2800::1")
INSIDE, METADATA = Peer(address="10.1.2.3"), Peer(address="169.254.169.254")


@overlays
def test_policies_let_through_what_the_pods_need_and_no_more(overlay: str) -> None:
    passes = partial(let_pass, overlay)
    for pod, port in (("cronspace-api", 3000), ("cronspace-worker", 8080)):
        assert passes(pod, "egress", RESOLVER, 53, "UDP")
        assert passes(pod, "egress", RESOLVER, 53, "TCP")
        assert not passes(pod, "egress", RESOLVER, 443)
        assert passes(pod, "ingress", PROMETHEUS, port)
        assert not passes(pod, "ingress", ANYBODY, port)
        assert not passes(pod, "egress", INSIDE, 443)
        assert not passes(pod, "egress", METADATA, 80)
    assert passes("cronspace-api", "ingress", INGRESS, 3000)
    assert not passes("cronspace-worker", "ingress", INGRESS, 8080)
    for target in (PUBLIC, PUBLIC_6):
        assert passes("cronspace-worker", "egress", target, 443)
        assert not passes("cronspace-api", "egress", target, 443)


@overlays
def test_policies_let_both_processes_reach_redis(overlay: str) -> None:
    redis, own = "cronspace-redis", pods(overlay)
    there = Peer(labels=own[redis]["metadata"]["labels"]) if redis in own else INSIDE
    for pod in ("cronspace-api", "cronspace-worker"):
        assert let_pass(overlay, pod, "egress", there, 6379)
        if redis in own:
            assert let_pass(overlay, redis, "ingress", Peer(labels=own[pod]["metadata"]["labels"]), 6379)
            assert not let_pass(overlay, redis, "egress", PUBLIC, 443)
            assert not let_pass(overlay, redis, "ingress", Peer(labels={"app": "another"}), 6379)


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl 1.27 or newer, to render the overlays")
def test_in_dev_workers_reach_the_echo_of_the_api() -> None:
    api, worker = (
        Peer(labels=pods("dev")[name]["metadata"]["labels"]) for name in ("cronspace-api", "cronspace-worker")
    )
    assert let_pass("dev", "cronspace-worker", "egress", api, 3000)
    assert let_pass("dev", "cronspace-api", "ingress", worker, 3000)
    assert not let_pass("prod", "cronspace-worker", "egress", api, 3000)


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl 1.27 or newer, to render the overlays")
def test_the_redis_of_dev_is_for_ours_alone_and_keeps_what_it_acknowledged() -> None:
    policy = named("dev", "NetworkPolicy", "cronspace-redis")["spec"]
    mine = {"podSelector": {"matchLabels": {"cronspace/uses-redis": "true"}}}
    assert policy["ingress"] == [{"from": [mine], "ports": [{"port": 6379}]}]
    (container,) = pods("dev")["cronspace-redis"]["spec"]["containers"]
    assert_keeps(container["args"])


def assert_keeps(command: list[str]) -> None:
    pairs = dict(zip(command[1::2], command[2::2], strict=True))
    assert pairs["--appendonly"] == "yes"
    assert pairs["--maxmemory-policy"] == "noeviction"


def external_metrics() -> dict[str, float]:
    """What the workers are scaled on: metric → how much of it a worker should have."""
    scaler = yaml.safe_load((DEPLOY / "components/workers-by-load/scaling.yaml").read_text())
    return {
        one["external"]["metric"]["name"]: float(one["external"]["target"]["averageValue"])
        for one in scaler["spec"]["metrics"]
    }


def test_the_adapter_gives_the_metrics_that_scale_for_each_namespace() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    given = {one["name"]["as"]: one for one in rules}
    assert set(given) == set(external_metrics())
    for name, rule in given.items():
        assert rule["seriesQuery"] == f'{name}{{namespace!=""}}'
        assert rule["resources"] == {"overrides": {"namespace": {"resource": "namespace"}}}
        assert rule["metricsQuery"] == "max(<<.Series>>{<<.LabelMatchers>>})"


def test_what_scales_is_measured() -> None:
    metrics = pytest.importorskip("app.telemetry.metrics")
    assert set(external_metrics()) <= {one.name for one in metrics.OF_FLEET}


def test_a_worker_is_added_before_the_places_of_the_others_are_full() -> None:
    assert external_metrics()["cronspace_in_flight_requests"] < Settings().max_jobs


def test_compose_gives_what_the_processes_accept() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert_keeps(services["redis"]["command"])
    api, worker = services["api"], services["worker"]
    for service in (api, worker):
        given = {name: str(value) for name, value in service["environment"].items()}
        settings = load_settings(ADDED_BY_THE_IMAGE | {name: filled(value) for name, value in given.items()})
        assert int(service["stop_grace_period"].removesuffix("s")) > settings.grace_seconds + 10
        assert service["read_only"] is True
        assert service["image"] == f"cronspace:{__version__}"
        assert service["volumes"] == [f"state:{settings.state_dir}"]
    assert worker["deploy"]["replicas"] == 2
    assert api["ports"] == [f"127.0.0.1:3000:{Settings().port}"]


def filled(value: str) -> str:
    """A value with what stands for variables of .env filled in."""
    return re.sub(r"\$\{(\w+):[?-]([^}]*)\}", lambda match: SECRETS.get(match[1], ""), value)


def test_manifests_name_this_version() -> None:
    base = yaml.safe_load((DEPLOY / "base/kustomization.yaml").read_text())
    assert [one["newTag"] for one in base["images"]] == [__version__]


def test_the_image_runs_as_nobody_special_and_needs_no_shell() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "\nUSER 1000:1000\n" in final
    assert not re.search(r"^RUN ", final, re.M)
    for word in ("ENTRYPOINT", "CMD"):
        for line in re.findall(rf"^{word} .+|(?<= ){word} .+", final, re.M):
            assert re.fullmatch(rf'{word} \[("[a-z]+"(, )?)+\]', line), line
    assert set(re.findall(r"\b(CRONSPACE_\w+)=", text)) <= SETTINGS
