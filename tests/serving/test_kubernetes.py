"""The manifests of run_scripts/kubernetes: valid by Kubernetes' own schemas, and right about the server."""

from __future__ import annotations

import copy
import re
import subprocess

import pytest
import yaml

from pangu_alpha.config.serve import load_serve_config
from tests.serving.running import ROOT, client_program, needs_clients

FOLDER = ROOT / "run_scripts/kubernetes"
VERSIONS = ("1.29", "1.37")  # the oldest that is checked, and the newest


def read(name):
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


BASE = {name: read(f"base/{name}") for name in read("base/kustomization.yaml")["resources"]}
POD = BASE["deployment.yaml"]["spec"]["template"]["spec"]
(SERVER,) = POD["containers"]


def patched():
    """The Deployment for Ascend: the operations of its patch, as RFC 6902 defines them."""
    found = copy.deepcopy(BASE["deployment.yaml"])
    for change in read("ascend/deployment_patch.yaml"):
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]]
        place = found
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        if isinstance(place, list):
            assert (change["op"], last) == ("add", "-")
            place.append(change["value"])
        else:
            assert (change["op"] == "replace") == (last in place), f"{change['path']}: wrong operation"
            place[last] = change["value"]
    return found


MANIFESTS = [*BASE.values(), patched()]


def validated(folder, manifests, version):
    """Exit code and output of kubernetes-validate, which allows no field that a schema does not know."""
    program = client_program("kubernetes-validate")
    if program is None:
        pytest.skip(needs_clients("kubernetes-validate"))
    for number, manifest in enumerate(manifests):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(manifest), "utf-8")
    words = [program, "--strict", "-k", version, *sorted(folder.glob("*.yaml"))]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_keep_to_the_schemas(version, tmp_path):
    code, output = validated(tmp_path, MANIFESTS, version)
    assert code == 0 and output.count("passed for resource") == len(MANIFESTS) == 5, output


def test_the_schema_finds_a_misspelt_field(tmp_path):
    wrong = copy.deepcopy(BASE["deployment.yaml"])
    server = wrong["spec"]["template"]["spec"]["containers"][0]
    server["livenessprobe"] = server.pop("livenessProbe")
    code, output = validated(tmp_path, [wrong], VERSIONS[-1])
    assert code != 0 and "livenessprobe" in output


@pytest.fixture
def config(tmp_path):
    """The server's configuration in the ConfigMap."""
    file = tmp_path / "serve.yaml"
    file.write_text(BASE["config.yaml"]["data"]["serve.yaml"], "utf-8")
    return load_serve_config(str(file), (), {})


def test_a_pod_has_time_to_drain(config):
    front = pytest.importorskip("pangu_alpha.serving.front.server", reason="needs the extra [serve]")
    _, seconds = SERVER["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(seconds) + config.drain_timeout + front._CUT_WITHIN
    assert needed < POD["terminationGracePeriodSeconds"]


def test_probes_ask_routes_that_need_no_key(config):
    outer = pytest.importorskip("pangu_alpha.serving.front.outer", reason="needs the extra [serve]")

    (port,) = SERVER["ports"]
    assert port["containerPort"] == config.port
    probes = {name: SERVER[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health/ready",
        "readiness": "/health/ready",
        "liveness": "/health",
    }
    assert {probe["path"] for probe in probes.values()} <= {*outer._OPEN}


def test_a_pod_s_files_are_mounted_where_the_server_looks(config):
    mounts = {mount["name"]: mount["mountPath"] for mount in SERVER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    words = dict(zip(SERVER["args"][::2], SERVER["args"][1::2], strict=True))
    assert words["--checkpoint"] == mounts["model"] and words["--config"] == f"{mounts['config']}/serve.yaml"
    assert volumes["config"]["configMap"]["name"] == BASE["config.yaml"]["metadata"]["name"]
    (copied,) = POD["initContainers"]
    *program, _, target = copied["command"]
    assert program == ["install", "-m", "0600"]  # what a group may read is refused as a key file
    assert target == config.key_file == f"{mounts['keys']}/keys" and config.host == "0.0.0.0"
    writable = [name for name in mounts if "emptyDir" in volumes[name]]
    assert SERVER["workingDir"] in {mounts[name] for name in writable}
    assert {mount["name"] for each in (SERVER, copied) for mount in each["volumeMounts"]} == {*volumes}


def test_the_selectors_find_the_pods():
    deployment = BASE["deployment.yaml"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == BASE["service.yaml"]["spec"]["selector"]
    assert BASE["disruption.yaml"]["spec"]["selector"]["matchLabels"] == labels
    (port,) = BASE["service.yaml"]["spec"]["ports"]
    assert port["targetPort"] == SERVER["ports"][0]["name"]


def test_the_overlay_for_ascend_changes_what_it_should():
    overlay = read("ascend/kustomization.yaml")
    (patch,) = overlay["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": BASE["deployment.yaml"]["metadata"]["name"]}
    (image,) = overlay["images"]
    images = {each["image"] for each in (*POD["containers"], *POD["initContainers"])}
    assert images == {f"{image['name']}:0.1.0"}
    (server,) = patched()["spec"]["template"]["spec"]["containers"]
    for kind in ("requests", "limits"):
        assert server["resources"][kind]["huawei.com/Ascend910"] == 1
    assert server["args"] == [*SERVER["args"], "--device=Ascend"]


def test_the_image_has_all_that_the_package_is_made_of():
    import pangu_alpha

    text = (FOLDER / "Dockerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (.*) \S+$", text, re.M)
    assert {*" ".join(copied).split()} == {"setup.py", "pyproject.toml", "model_zoo", "src"}
    assert f"pangu-alpha:{pangu_alpha.__version__}" in text
