"""During a deploy one reader reads the lines of several releases."""

from shared.logs.declaring import LOG_VERSION
from tests.log_lines import breaches, hold_against_contract

OF_THE_FIRST_RELEASE = {"event": "job_unfinished", "level": "warning", "error": "ConnectionError"}


def test_a_line_that_only_an_older_release_logs_is_still_in_the_contract() -> None:
    line = {
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "process": "worker",
        "schema_version": LOG_VERSION,
        **OF_THE_FIRST_RELEASE,
    }
    hold_against_contract([line])
    assert breaches == []
