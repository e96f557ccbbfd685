"""Holds the commands of `aws` and `sam` in the README, the guides and the runbook against what those programs take.

They act on an AWS account, so no test can type them. What can be told without one is whether each names a command that
exists, options that the command has, and all that it asks for, by AWS's own description of its services and by the SAM
CLI itself; and whether functions, sample events and environments are there that a command names.

Usage: aws_commands.py SAM, where SAM is that program.
"""

import functools
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import botocore.session
from botocore import xform_name

PAGES = ["README.md", "infra/RUNBOOK.md", *sorted(str(page) for page in pathlib.Path("infra/guides").glob("*.md"))]

# Options that every command of `aws` has.
OF_ALL = {"--query", "--output", "--region", "--profile"}

# Commands of `aws` that are more than one call of a service, and their options. Source: AWS CLI command reference.
OWN = {
    ("configure", "export-credentials"): ({"--format"}, set()),
    ("cloudformation", "deploy"): (
        {"--stack-name", "--template-file", "--s3-bucket", "--capabilities", "--parameter-overrides"},
        {"--stack-name", "--template-file"},
    ),
}

SESSION = botocore.session.get_session()


def commands(page):
    """The commands in a page's blocks of code, also those within others, as lists of words."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        line = line.strip().removeprefix("$ ")
        inner = re.search(r"\$\((aws [^)]*)\)", line)
        if inner:
            yield shlex.split(inner[1])
        elif line.startswith(("aws ", "sam ")):
            yield shlex.split(line)


@functools.cache
def call(service, command):
    """The options of a service's call, and those that it asks for."""
    try:
        model = SESSION.get_service_model(service)
    except botocore.exceptions.UnknownServiceError:
        return None
    for name in model.operation_names:
        if xform_name(name, "-") == command:
            shape = model.operation_model(name).input_shape
            option = lambda member: f"--{xform_name(member, '-')}"
            return set(map(option, shape.members)), set(map(option, shape.required_members))
    return None


@functools.cache
def help_of(sam, *command):
    """What the SAM CLI says of one of its commands; `None` where it has none of that name."""
    told = subprocess.run([sam, *command, "--help"], capture_output=True, text=True)
    return told.stdout if told.returncode == 0 else None


def faults(sam, words):
    """What is wrong with a command."""
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    if words[0] == "aws":
        known = OWN.get(tuple(words[1:3])) or call(*words[1:3])
        if known is None:
            return [f"there is no aws {words[1]} {words[2]}"]
        has, asks = known
        unknown = [f"it has no {option}" for option in sorted(given - has - OF_ALL)]
        return unknown + [f"it wants {option}" for option in sorted(asks - given)]
    length = 3 if words[1] == "local" else 2
    told = help_of(sam, *words[1:length])
    if told is None:
        return [f"there is no {' '.join(words[:length])}"]
    found = [f"it has no {option}" for option in sorted(given) if not re.search(rf"{option}\b", told)]
    template = pathlib.Path("template.yaml").read_text()
    environments = tomllib.loads(pathlib.Path("samconfig.toml").read_text())
    for before, word in zip(words[length - 1 :], words[length:]):
        if word.endswith("Function") and f"\n  {word}:\n" not in template:
            found.append(f"the template has no {word}")
        if before == "--event" and not pathlib.Path(word).exists():
            found.append(f"there is no {word}")
        if before == "--config-env" and word not in environments:
            found.append(f"samconfig.toml has no {word}")
    return found


# Commands that have to be found wrong, each for one reason.
BROKEN = [
    "aws lambda get-function-settings --function-name f",
    "aws lambda get-alias --function-name f --name live --version 1",
    "aws lambda get-alias --function-name f",
    "aws lambada get-alias --function-name f --name live",
    "aws cloudformation deploy --stack-name s --template-file t --parameters A=b",
    "sam deploy --config-env nowhere",
    "sam deploy --environment production",
    "sam undeploy",
    "sam build StatsFunction",
    "sam local invoke StatusFunction --event infra/events/stats.json",
]


def main(sam):
    wrong, checked = [], 0
    for page in PAGES:
        for words in commands(pathlib.Path(page).read_text()):
            checked += 1
            wrong += [f"{page}: {shlex.join(words)}: {fault}" for fault in faults(sam, words)]
    if checked < 15:
        wrong.append(f"only {checked} commands were found")
    for line in BROKEN:
        found = faults(sam, shlex.split(line))
        if len(found) != 1:
            wrong.append(f"this check finds {found} in: {line}")
    print("\n".join(wrong) if wrong else f"{checked} commands")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
