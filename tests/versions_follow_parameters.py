"""Holds the template to this: whoever changes a parameter's value that a function is set up with gets a new version of
the function, and nobody else does.

Requests go to a function's alias, and so to the version that was published last. The SAM transform names versions by
what it sees of a function's properties; with another name CloudFormation publishes another version. The transforms are
run here as AWS runs them, by the code that the SAM CLI brings along.

Usage: versions_follow_parameters.py [TEMPLATE]
"""

import logging
import pathlib
import sys
from unittest import mock

from samcli.lib.cfn_language_extensions.sam_integration import expand_language_extensions
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

# What has no default, and what CloudFormation knows by itself.
GIVEN = {
    "JwtIssuer": "https://issuer.example.com/",
    "JwtAudience": "berth",
    "AWS::Region": "eu-central-1",
    "AWS::Partition": "aws",
    "AWS::StackName": "berth",
    "AWS::AccountId": "000000000000",
    "AWS::URLSuffix": "amazonaws.com",
}

# Parameters that functions are set up with, each with a value that is not its default.
SETTINGS = {
    "Maintenance": "on",
    "LogLevel": "DEBUG",
    "MaxConnections": "6",
    "AllowedOrigins": "https://app.example.com",
    "InboundLimit": "7",
}

# Parameters that no function sees.
OTHERS = {"AlarmEmail": "ops@example.com", "ConnectionSyncInterval": "rate(5 minutes)"}


def deployed(template, changed):
    """The resources that CloudFormation would make of the template, with some parameters changed."""
    template = yaml_parse(template)
    defaults = {
        name: str(parameter["Default"]) for name, parameter in template["Parameters"].items() if "Default" in parameter
    }
    parameters = {**defaults, **GIVEN, **changed}
    # `sam deploy` puts the places of what it uploaded here.
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://uploaded/{name}"
        if resource["Type"] == "AWS::CloudFormation::Stack":
            resource["Properties"]["TemplateURL"] = f"https://uploaded.example.com/{name}"
    expanded = expand_language_extensions(template, parameters, enabled=True).expanded_template
    with mock.patch("boto3.session.Session.region_name", GIVEN["AWS::Region"]):
        return Translator({}, Parser()).translate(expanded, parameters)["Resources"]


def versions(resources):
    """The names of the functions' versions."""
    return {name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Version"}


def main(path):
    logging.disable(logging.ERROR)
    template = pathlib.Path(path).read_text()
    functions = template.count("Type: AWS::Serverless::Function\n")
    before = versions(deployed(template, {}))
    assert len(before) == functions, f"{len(before)} versions of {functions} functions"
    assert versions(deployed(template, {})) == before, "versions are not named the same twice"
    faults = []
    for parameter, value in SETTINGS.items():
        kept = before & versions(deployed(template, {parameter: value}))
        if kept:
            faults.append(f"{parameter}={value} leaves {len(kept)} functions at their old version")
    for parameter, value in OTHERS.items():
        if versions(deployed(template, {parameter: value})) != before:
            faults.append(f"{parameter}={value} makes new versions")
    # Maintenance does not wait for a gradual deployment.
    canary = {"DeploymentPreference": "Canary10Percent5Minutes"}
    for maintenance, expected in [("off", canary["DeploymentPreference"]), ("on", "AllAtOnce")]:
        resources = deployed(template, {**canary, "Maintenance": maintenance})
        for name, resource in resources.items():
            if resource["Type"] == "AWS::CodeDeploy::DeploymentGroup" and expected not in str(resource):
                faults.append(f"{name} does not move by {expected} while maintenance is {maintenance}")
    # The check itself: without the first transform it has to fail.
    broken = template.replace("  - AWS::LanguageExtensions\n", "")
    if not versions(deployed(broken, {})) & versions(deployed(broken, {"Maintenance": "on"})):
        faults.append("this check would not find a template whose versions do not follow its parameters")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["template.yaml"])))
