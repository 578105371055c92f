"""What any process may log: of the log file, and in a library's words."""

from shared.logs.declaring import event

PROCESS_EVENTS = (
    event(
        "log_file_failed", "all", "error", "Lines go to stdout only from here on.",
        error="string: such as `ENOSPC`",
    ),
    event(
        "log_file_restored", "all", "warning", "Lines go to the file again.",
        lost="integer: lines that the file lacks",
    ),
    event(
        "log_file_not_rotated", "all", "error",
        "The file cannot be renamed, so it grows beyond 100 MiB. Tried again at each further MiB.",
        error="string: such as `EACCES`",
    ),
    event(
        "library_message", "all", "info warning error critical",
        "A library has something to say, in its own words.",
        logger="string: which",
        message="string: what",
        exception="string~: the traceback",
        stack="string~: the stack",
    ),
)  # fmt: skip
