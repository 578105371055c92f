"""However fast something comes and goes, the log has few lines of it, and they say how often it went."""

from structlog.testing import capture_logs

from shared.redis.outage import MOST_LINES, WITHIN_SECONDS, Fault, Outage

AWAY = Fault("ConnectionError")


class Clock:
    """Moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_that_goes_and_comes_back_has_two_lines() -> None:
    outage = Outage("redis_lost", "redis_restored", Clock())
    with capture_logs() as lines:
        for fault in (None, AWAY, AWAY, Fault("TimeoutError"), None, None):
            outage.note(fault)
    assert lines == [
        {"event": "redis_lost", "log_level": "warning", "error": "ConnectionError"},
        {"event": "redis_restored", "log_level": "info"},
    ]


def test_one_that_flaps_for_minutes_has_a_few_lines_which_count_every_loss() -> None:
    clock = Clock()
    outage, losses, minutes = Outage("redis_lost", "redis_restored", clock), 0, 5
    with capture_logs() as lines:
        while clock.now < 60 * minutes:
            outage.note(AWAY)
            losses += 1
            clock.now += 0.25
            outage.note(None)
            clock.now += 0.25
        clock.now += WITHIN_SECONDS
        outage.note(None)
    assert len(lines) <= MOST_LINES * (60 * minutes / WITHIN_SECONDS + 1)
    counted = sum(line.get("times", line["event"] == "redis_lost") for line in lines)
    assert counted == losses
    assert lines[-1]["event"] == "redis_restored"


def test_what_is_lost_for_good_while_it_flaps_is_told_once_there_is_room() -> None:
    clock = Clock()
    outage = Outage("redis_lost", "redis_restored", clock)
    with capture_logs() as lines:
        for fault in (AWAY, None, AWAY, None, AWAY):
            outage.note(fault)
        assert len(lines) == MOST_LINES
        clock.now += WITHIN_SECONDS
        outage.note(AWAY)
        outage.note(AWAY)
    assert [(line["event"], line.get("times")) for line in lines[MOST_LINES:]] == [("redis_lost", 2)]


def test_another_refusal_is_told_as_well() -> None:
    outage = Outage("redis_lost", "redis_restored", Clock())
    with capture_logs() as lines:
        outage.note(AWAY)
        outage.note(Fault("AuthenticationError", "Redis refuses us (NOAUTH)"))
    assert [line.get("hint") for line in lines] == [None, "Redis refuses us (NOAUTH)"]
