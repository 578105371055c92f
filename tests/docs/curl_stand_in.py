"""As much of curl as the pages use, for a machine without it: `-sS URL`, and any of `-X`, `-H` and `-d`."""

import argparse
import sys
import urllib.error
import urllib.request


def main() -> None:
    """Send one request and print the answer's body, whatever its status is."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-sS", action="store_true", required=True)
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    parser.add_argument("url")
    given = parser.parse_args()
    body = None if given.body is None else given.body.encode()
    request = urllib.request.Request(given.url, data=body, method=given.method)  # noqa: S310 - our own API
    for header in given.headers:
        name, _, value = header.partition(": ")
        request.add_header(name, value)
    try:
        answer = urllib.request.urlopen(request, timeout=20)  # noqa: S310 - our own API
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        sys.stdout.buffer.write(answer.read())


if __name__ == "__main__":
    main()
