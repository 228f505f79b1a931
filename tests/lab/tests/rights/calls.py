"""Makes calls one after the other, each signed by its own caller, and says what came of each.

Reads a JSON list from standard input: [{"key", "secret", "token", "service", "method", "arguments"}, ...]. Writes a
list as long: null for a call that was carried out, {"code", "message"} for one that was refused.
"""

import json
import sys

import boto3
import botocore

once = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=30)
clients = {}


def client(call):
    signer = call["key"], call["secret"], call["token"], call["service"]
    if signer not in clients:
        key, secret, token, service = signer
        clients[signer] = boto3.client(
            service, aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token, config=once
        )
    return clients[signer]


def outcome(call):
    try:
        getattr(client(call), call["method"])(**call["arguments"])
    except botocore.exceptions.ClientError as error:
        return {"code": error.response["Error"]["Code"], "message": error.response["Error"]["Message"]}
    return None


print(json.dumps([outcome(call) for call in json.load(sys.stdin)]))
