"""Profiles of hypothesis for this folder: `pytest tests/model --hypothesis-profile=long`."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "model",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long",
    settings.get_profile("model"),
    derandomize=False,
    max_examples=2000,
    stateful_step_count=80,
    phases=[Phase.generate, Phase.shrink],
)
