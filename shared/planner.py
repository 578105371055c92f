"""What PostgreSQL must not do when it plans our statements, and why: settings of a session or a transaction.

Indexes serve our statements. PostgreSQL chooses by statistics, though, which may be as old as the empty
table, and keeps the plan for as long as nobody analyses the table, however large that grows. So what reads
a whole table is forbidden, and the plan that is left is right at any size.
"""

from collections.abc import Mapping

NO_SCANS = {"enable_seqscan": "off"}
NO_BITMAPS = {"enable_bitmapscan": "off"}  # one holds every row that matches before a LIMIT takes the first
NO_SORTS = {"enable_sort": "off"}  # nor need they be sorted: an index has the order
NESTED_LOOPS_ONLY = {"enable_hashjoin": "off", "enable_mergejoin": "off"}  # the others read a whole side

# Where one plan is left, planning anew is wasted: it took a quarter of the time of a batch of one event.
# The planner does not know the limit of a claim then, and might believe that compiling it pays.
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
# A plan for any values would read from the first key on, or what a condition that is NULL leaves out.
PLANNED_EACH_TIME = {"plan_cache_mode": "force_custom_plan"}

REQUESTS = NO_SCANS
BATCHES = NO_SCANS | NO_BITMAPS | NESTED_LOOPS_ONLY | PLANNED_ONCE
LOOKS = NO_SCANS | NO_BITMAPS | NO_SORTS  # at what comes first, and no further than is counted
STATUS = LOOKS | NESTED_LOOPS_ONLY | PLANNED_EACH_TIME | {"jit": "off"}
# Is any id higher? The planner believes that a scan finds one at once. A BRIN index is read through a bitmap.
SEQUENCES = NO_SCANS | {"enable_bitmapscan": "on", "jit": "off"}
CHUNKS = NO_SCANS | NO_BITMAPS | PLANNED_EACH_TIME
ROLLBACK = NO_SCANS | NESTED_LOOPS_ONLY | PLANNED_EACH_TIME
# The audit compares whole tables. The session that it borrows may forbid that to its own statements.
COMPARISON = {"enable_seqscan": "on", "enable_hashjoin": "on", "jit": "off"} | PLANNED_EACH_TIME


def for_transaction(settings: Mapping[str, str]) -> str:
    """Return the statement that sets these, which are constants of ours, until the transaction ends."""
    calls = (f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    return "\n    SELECT " + ",\n        ".join(calls)
