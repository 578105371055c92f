"""Profiles of hypothesis for this folder: `pytest tests/model --hypothesis-profile=long`."""

import pytest
from hypothesis import HealthCheck, Phase, settings

pytest.register_assert_rewrite("tests.model.machine", "tests.model.model")

settings.register_profile(
    "model",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    stateful_step_count=40,
    phases=[Phase.generate, Phase.shrink],  # explaining traces every line
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long",
    settings.get_profile("model"),
    derandomize=False,
    max_examples=2000,
    stateful_step_count=80,
)
