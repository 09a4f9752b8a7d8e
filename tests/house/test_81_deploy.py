"""The deployment names a flow that exists and parameters that it takes."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.prefect]


def deployments():
    text = (REPOSITORY / "deploy" / "prefect.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["deployments"]


def test_entrypoints_are_modules_with_that_flow():
    from prefect import Flow

    for deployment in deployments():
        module, name = deployment["entrypoint"].split(":")
        assert "/" not in module
        assert not module.endswith(".py")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        inspect.signature(flow.fn).bind(**deployment["parameters"])


def test_prefect_accepts_the_file():
    from prefect.cli.deploy._models import PrefectYamlModel

    text = (REPOSITORY / "deploy" / "prefect.yaml").read_text(encoding="utf-8")
    model = PrefectYamlModel.model_validate(yaml.safe_load(text))
    assert [item.name for item in model.deployments] == ["stack"]


def test_pinned_prefect_is_the_locked_one():
    text = (REPOSITORY / "deploy" / "prefect.yaml").read_text(encoding="utf-8")
    version = yaml.safe_load(text)["prefect-version"]
    assert f"\nprefect=={version} " in (REPOSITORY / "requirements.lock").read_text("utf-8")
