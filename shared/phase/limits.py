"""The gates' limits, as operators set them."""

from shared.phase.gates import Limits
from shared.settings import PhaseSettings


def limits_of(settings: PhaseSettings) -> Limits:
    return Limits(
        settings.phase_writers_seconds, settings.phase_in_sync_seconds, settings.phase_lists_compared
    )
