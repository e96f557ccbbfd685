"""Sends the local stack whatever its OpenAPI document allows, and what it does not, as an operator and as a user.

Usage: api_with_schemathesis.py SCHEMATHESIS COMMAND [ARGUMENT...]

SCHEMATHESIS is that program. The command starts a local stack on free ports, such as `berth local --memory --port 0`.
No answer may be a server error, and each has to be one that the document describes. The seed is fixed, so that the same
code gets the same requests.
"""

import json
import signal
import subprocess
import sys

# What is looked at in each answer.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]

# Requests for each operation, as either caller.
EXAMPLES = "12"

# Seconds that each caller may take at most.
TIME = "150"


def start(command):
    """Starts the stack and waits until it is ready. Returns the process and the API's address."""
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    urls = json.loads(stack.stdout.readline())
    ready = stack.stdout.readline().split()
    assert ready == ["ready", urls["api"]], ready
    return stack, urls["api"]


def fuzz(schemathesis, api, token):
    """Whether everything that the API answers to this caller is as it should be."""
    return (
        subprocess.run(
            [
                schemathesis,
                "run",
                f"{api}/openapi.json",
                "--header",
                f"Authorization: Bearer {token}",
                "--checks",
                ",".join(CHECKS),
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                EXAMPLES,
                "--max-time",
                TIME,
                "--request-timeout",
                "30",
                "--seed",
                "7",
                "--warnings",
                "off",
            ],
            check=False,
        ).returncode
        == 0
    )


def main():
    schemathesis, command = sys.argv[1], sys.argv[2:]
    stack, api = start(command)
    try:
        kept = [fuzz(schemathesis, api, token) for token in ("dev:olga:operator", "dev:ada")]
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(timeout=30)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
