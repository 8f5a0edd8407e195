"""The template for Flink on Kubernetes: schemas of its objects, its flags, and what must agree."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import string
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions

from beam_asr.cli import beam_flags, options
from tests.support.emulators import CACHE
from tests.support.job_files import REPOSITORY

FOLDER = REPOSITORY / "templates/flink"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
JOBS = ("submit.yaml", "submit-by-job-server.yaml")
FILLED = {
    "IMAGE": "registry/beam-asr:1",
    "BUCKET": "bucket",
    "GPUS": "4",
    "INPUT": "gs://bucket/manifest.jsonl",
    "OUTPUT": "gs://bucket/out",
    "MODEL": "nvidia/parakeet-tdt-0.6b-v3",
}
KUBERNETES = "1.29"

# The newest that the registry has. What the operator has learnt since, and we use, is here.
OPERATOR = "org.apache.flink:flink-kubernetes-operator-api:1.10.0"
CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"
FLINK_VERSIONS_SINCE = ["v2_0", "v2_1", "v2_2"]
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def objects(name: str) -> list[dict[str, Any]]:
    text = string.Template((FOLDER / name).read_text(encoding="utf-8")).substitute(FILLED)
    return list(yaml.safe_load_all(text))


def cluster() -> dict[str, Any]:
    (found,) = [each for each in objects("cluster.yaml") if each["kind"] == "FlinkDeployment"]
    return found


def worker_pod() -> dict[str, Any]:
    return cluster()["spec"]["taskManager"]["podTemplate"]["spec"]


def pool() -> dict[str, Any]:
    (container,) = worker_pod()["initContainers"]
    return container


def job_pod(name: str) -> dict[str, Any]:
    (job,) = objects(name)
    return job["spec"]["template"]["spec"]


def launcher(name: str) -> dict[str, Any]:
    (container,) = job_pod(name)["containers"]
    return container


def beam_options(args: list[str]) -> beam.options.pipeline_options.PipelineOptions:
    """What a command line's flags are to Beam; a flag that nobody knows is refused."""
    return beam_flags.parse(options.parse_args(args).beam_args)


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("beam-asr ")]


def strict(schema: Any) -> Any:
    """A schema of a CRD that refuses fields it does not name; Kubernetes drops them silently."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(each) for name, each in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
    }
    open_ended = (
        "additionalProperties" in schema or "x-kubernetes-preserve-unknown-fields" in schema
    )
    if "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="session")
def crd_jar() -> Path:
    """The operator's own classes, in which its schemas are."""
    folder = CACHE / OPERATOR.replace(":", "-")
    if not folder.exists():
        if not shutil.which("mvn"):
            pytest.skip("the schema of FlinkDeployment comes by mvn, which is not here")
        part = folder.with_name(f"{folder.name}.part")  # an interrupted download is none
        shutil.rmtree(part, ignore_errors=True)
        command = ["mvn", "-q", "-B", COPY, f"-Dartifact={OPERATOR}", f"-DoutputDirectory={part}"]
        subprocess.run(command, check=True, cwd=CACHE.parent)
        part.rename(folder)
    (jar,) = folder.glob("*.jar")
    return jar


@pytest.fixture(scope="session")
def deployment_schema(crd_jar) -> dict[str, Any]:
    with zipfile.ZipFile(crd_jar) as jar:
        definition = yaml.load(jar.read(CRD), Loader=yaml.CSafeLoader)
    (version,) = definition["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"] += FLINK_VERSIONS_SINCE
    group = definition["spec"]["group"]
    schema["properties"] |= {
        "apiVersion": {"const": f"{group}/{version['name']}"},
        "kind": {"const": definition["spec"]["names"]["kind"]},
        "metadata": {"properties": {"name": {"type": "string"}}, "additionalProperties": False},
    }
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


@pytest.fixture
def check(deployment_schema):
    """Raises ``jsonschema.ValidationError`` for an object that is not right, of any kind here."""
    reason = "the schemas of Kubernetes come with kubernetes-validate, which is not installed"
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=reason)
    import jsonschema

    def check(found: dict[str, Any]) -> None:
        if found["kind"] != "FlinkDeployment":
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
            return
        jsonschema.Draft7Validator(deployment_schema).validate(found)
        spec = found["spec"]
        for template in (spec["podTemplate"], spec["taskManager"]["podTemplate"]):
            pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
            # Flink adds its own container to a template that has none.
            pod["spec"].setdefault("containers", [{"name": "flink-main-container"}])
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)

    return check


@pytest.mark.parametrize("name", ["cluster.yaml", *JOBS])
def test_objects_are_what_kubernetes_and_the_operator_take(name, check):
    for found in objects(name):
        check(found)


def misspelt(found: Any) -> Iterator[Any]:
    """The object once for each of its fields, with that field's name misspelt; free names are left
    out: of the configuration and of amounts."""
    if isinstance(found, list):
        for index, each in enumerate(found):
            for made in misspelt(each):
                yield [*found[:index], made, *found[index + 1 :]]
    elif isinstance(found, dict):
        for key, value in found.items():
            others = {name: each for name, each in found.items() if name != key}
            if key not in ("apiVersion", "kind"):
                yield {**others, f"{key}s": value}
            if key not in ("flinkConfiguration", "limits", "requests"):
                for made in misspelt(value):
                    yield {**others, key: made}


@pytest.mark.parametrize("name", ["cluster.yaml", *JOBS])
def test_every_field_that_is_misspelt_is_found(name, check):
    import jsonschema

    tried = 0
    for found in objects(name):
        for made in misspelt(found):
            tried += 1
            with pytest.raises(jsonschema.ValidationError):
                check(made)
    assert tried > 20


@pytest.mark.parametrize("args", [launcher(name)["args"] for name in JOBS] + readme_commands())
def test_flags_of_the_launchers_exist_and_go_together(args):
    given = beam_options(args)
    portable = given.view_as(PortableOptions)
    assert portable.environment_type == "EXTERNAL"
    assert portable.environment_config == f"localhost:{pool()['startupProbe']['tcpSocket']['port']}"
    assert int(portable.sdk_worker_parallelism) == 1
    assert int(portable.environment_cache_millis) == 0  # a lost GPU's process must not be kept
    assert str(given.view_as(FlinkRunnerOptions).parallelism) == FILLED["GPUS"]


def test_there_is_a_launcher_in_the_readme():
    assert len(readme_commands()) == 1


def test_no_more_slots_are_requested_than_there_may_be_each_with_a_gpu_of_its_own():
    configuration = cluster()["spec"]["flinkConfiguration"]
    assert configuration["taskmanager.numberOfTaskSlots"] == "1"
    assert configuration["slotmanager.number-of-slots.max"] == FILLED["GPUS"]
    assert pool()["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_versions_agree_with_each_other_and_with_beam():
    spec = cluster()["spec"]
    name, version = spec["image"].split(":")
    minor = version.rpartition(".")[0]
    assert name == "flink"
    assert spec["flinkVersion"] == f"v{minor.replace('.', '_')}"
    assert (
        minor
        == beam_options(launcher("submit.yaml")["args"]).view_as(FlinkRunnerOptions).flink_version
    )
    (environment,) = spec["podTemplate"]["spec"]["containers"][0]["env"]
    assert environment["value"] == f"flink-gs-fs-hadoop-{version}.jar"
    for job in JOBS:
        (server,) = job_pod(job)["initContainers"]
        assert server["image"] == f"apache/beam_flink{minor}_job_server:{beam.__version__}"
    assert f"beam-runners-flink-{minor}-job-server-{beam.__version__}.jar" in README


def test_launchers_reach_the_cluster_and_workers_what_is_staged():
    rest = f"{cluster()['metadata']['name']}-rest:8081"
    submitted = beam_options(launcher("submit.yaml")["args"]).view_as(FlinkRunnerOptions)
    assert submitted.flink_master == f"http://{rest}"
    (jar,) = launcher("submit.yaml")["volumeMounts"]
    assert submitted.flink_job_server_jar.startswith(f"{jar['mountPath']}/")
    (server,) = job_pod("submit-by-job-server.yaml")["initContainers"]
    flags = dict(arg.split("=", 1) for arg in server["args"])
    assert flags["--flink-master"] == rest
    assert flags["--artifacts-dir"].startswith("gs://")
    portable = beam_options(launcher("submit-by-job-server.yaml")["args"]).view_as(PortableOptions)
    assert portable.job_endpoint == f"localhost:{flags['--job-port']}"
    assert portable.artifact_endpoint == f"localhost:{flags['--artifact-port']}"


def test_models_and_shared_memory_are_on_volumes_that_the_pod_has():
    mounts = {each["mountPath"]: each["name"] for each in pool()["volumeMounts"]}
    volumes = {each["name"]: each for each in worker_pod()["volumes"]}
    assert set(mounts.values()) == set(volumes)
    folders = {each["name"]: each.get("value", "") for each in pool()["env"]}
    for variable in ("BEAM_ASR_CACHE", "HF_HOME"):
        assert folders[variable].startswith("/models/")
    claim = volumes[mounts["/models"]]["persistentVolumeClaim"]["claimName"]
    (made,) = [each for each in objects("cluster.yaml") if each["kind"] == "PersistentVolumeClaim"]
    assert claim == made["metadata"]["name"]
    assert made["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_workers_and_launchers_have_one_image():
    images = {pool()["image"], *(launcher(name)["image"] for name in JOBS)}
    assert images == {FILLED["IMAGE"]}


def test_what_the_readme_fills_in_is_all_there_is():
    filled = dict(re.findall(r"envsubst '([^']+)' < templates/flink/(\S+)", README))
    for names, file in filled.items():
        used = set(re.findall(r"\$\{(\w+)\}", (FOLDER / file).read_text(encoding="utf-8")))
        assert {name.lstrip("$") for name in names.split()} == used
