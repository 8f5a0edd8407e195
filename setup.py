"""Packaging; also what Beam builds and stages for its workers (``--setup_file=./setup.py``)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def storage_extras() -> dict[str, list[str]]:
    """The extra that each line of requirements-storage.in names."""
    lines = (line.split("# extra: ") for line in requirements("requirements-storage.in"))
    return {extra.strip(): [package.strip()] for package, extra in lines}


setup(
    name="beam-asr",
    version=re.search(
        r'^__version__ = "(.+)"', (HERE / "beam_asr/_version.py").read_text(), re.M
    ).group(1),
    description="Batch speech recognition on Apache Beam with NVIDIA NeMo models",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["beam_asr", "beam_asr.*"]),
    package_data={
        "beam_asr": ["py.typed"],
        "beam_asr.outputs.report": ["templates/*"],
        "beam_asr.transforms": ["yaml_provider.yaml"],
    },
    python_requires=">=3.10",
    install_requires=requirements("requirements.in"),
    extras_require={
        **storage_extras(),
        "test": requirements("requirements-test.in"),
    },
    entry_points={"console_scripts": ["beam-asr=beam_asr.__main__:main"]},
)
