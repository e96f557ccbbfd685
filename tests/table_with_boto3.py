"""Reads the local stack's table with boto3, as any AWS client can.

Usage: table_with_boto3.py COMMAND [ARGUMENT...]

The command starts a local stack on free ports, such as `berth local --memory --port 0`.
The addresses are taken from the line of JSON that it prints, and at the end it is stopped as Ctrl-C does.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request

import boto3


def start(command):
    """Starts the stack and waits until it is ready. Returns the process and the addresses it printed."""
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    urls = json.loads(stack.stdout.readline())
    ready = stack.stdout.readline().split()
    assert ready == ["ready", urls["api"]], ready
    return stack, urls


def register(api, user):
    """Registers a user over the API, so that the table holds something."""
    request = urllib.request.Request(
        api + "/api/snaptrade/register",
        data=b"{}",
        method="POST",
        headers={"authorization": f"Bearer dev:{user}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201, answer.status
        return json.load(answer)


def check(urls):
    """Registers a user and finds it in the table, in the index and among the audit entries."""
    registered = register(urls["api"], "ada")
    options = {
        "endpoint_url": urls["dynamodb"],
        "region_name": "us-east-1",
        "aws_access_key_id": "any",
        "aws_secret_access_key": "any",
    }
    client = boto3.client("dynamodb", **options)
    [name] = client.list_tables()["TableNames"]
    described = client.describe_table(TableName=name)["Table"]
    assert described["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES", described
    ttl = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at"), ttl

    table = boto3.resource("dynamodb", **options).Table(name)
    user = table.get_item(Key={"pk": "default#USER#ada", "sk": "USER"}, ConsistentRead=True)["Item"]
    assert user["created_at"] == registered["created_at"], (user["created_at"], registered)
    assert user["state"] == "active", user["state"]

    listed = table.query(
        IndexName="gsi1",
        KeyConditionExpression="gsi1pk = :pk",
        ExpressionAttributeValues={":pk": "default#HOLDERS"},
    )["Items"]
    assert [item["pk"] for item in listed] == ["default#USER#ada"], listed

    items = table.scan()["Items"]
    assert any("AUDIT" in item["sk"] for item in items), items
    print(f"boto3 read the table {name}: {len(items)} items, the user among them")


def main():
    stack, urls = start(sys.argv[1:])
    try:
        check(urls)
        stack.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        code = stack.wait(timeout=20)
        assert code == 0, f"the stack ended with {code}"
        print(f"the stack stopped within {time.monotonic() - stopped:.1f} s")
    finally:
        if stack.poll() is None:
            stack.kill()
            stack.wait()


if __name__ == "__main__":
    main()
