"""Starts MiniStack, ends it with the lab, and corrects what keeps AWS's own policies from holding unchanged.

IAM has no action for SQS's batch calls: each is allowed by its single call's action
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html).
MiniStack 1.5.33 checks them under names of their own, so a policy that is right on AWS is refused.

What the proxy authorizes (authorize/scope.rs has the list) it marks: with WHO_SIGNED, only the signature is checked and
the caller's ARN is the answer; with AUTHORIZED, the call is carried out after a check of the signature alone. The proxy
lets no caller say either.

SQS stamps each message with its sender's unique id: `AIDA…` for a user, `AROA…:session` for a session of a role, the
account for its root (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html,
SenderId). MiniStack 1.5.33 stamps the account's number on all of them, and again when it hands them to a Lambda. (A function's own session has the role's name
in place of the role's id there, as in the rest of MiniStack.)

An execution environment whose init fails is replaced, and the function's others go on; MiniStack 1.5.33 kills them all,
those that are at work included.
"""

import contextvars
import json
import os
import signal
import threading

from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.services import lambda_svc, sqs

IAM_ACTION_OF_BATCH = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}


def corrected(action_of_request):
    def action(*request):
        found = action_of_request(*request)
        return IAM_ACTION_OF_BATCH.get(found, found)

    return action


# Both ways in which SQS names an operation: JSON (X-Amz-Target) and Query (Action=).
iam_actions._action_from_target = corrected(iam_actions._action_from_target)
iam_actions._action_from_query = corrected(iam_actions._action_from_query)

WHO_SIGNED = "x-lab-who-signed"
AUTHORIZED = "x-lab-authorized"

is_authorized = contextvars.ContextVar("lab_is_authorized", default=False)
dispatch = app._dispatch_service_request
enforce = iam_evaluator.enforce


async def dispatch_or_say_who(method, path, headers, body, query, request_id):
    is_authorized.set(AUTHORIZED in headers)
    if WHO_SIGNED not in headers:
        return await dispatch(method, path, headers, body, query, request_id)
    service = app.detect_service(method, path, headers, app._routing_params(method, path, headers, body, query))
    if failure := app._authenticate_only(service, headers, query, request_id):
        return failure
    caller = iam_evaluator.resolve_credential(app.extract_access_key_id(headers, query))
    return 200, {"Content-Type": "application/json"}, json.dumps({"arn": caller.principal_arn}).encode()


def enforce_unless_authorized(access_key_id, iam_action, service, *arguments, **named):
    if is_authorized.get():
        return iam_evaluator.check_credentials(access_key_id, service)
    return enforce(access_key_id, iam_action, service, *arguments, **named)


app._dispatch_service_request = dispatch_or_say_who
iam_evaluator.enforce = enforce_unless_authorized



def with_the_sender(attributes_of_send):
    def attributes(*arguments):
        found = attributes_of_send(*arguments)
        # The key whose signature was verified for this very call; the root key's never is.
        key = iam_evaluator._verified_key.get()
        caller = key and iam_evaluator.resolve_credential(key)
        return found | {"SenderId": caller.principal_id} if caller else found

    return attributes


def with_the_senders(run_batch):
    def run(esm, function, event, batch, *queue):
        senders = {message["id"]: message.get("sys", {}).get("SenderId") for message in batch}
        for record in event["Records"]:
            if sender := senders.get(record["messageId"]):
                record["attributes"]["SenderId"] = sender
        return run_batch(esm, function, event, batch, *queue)

    return run


sqs._build_send_sys_attrs = with_the_sender(sqs._build_send_sys_attrs)
lambda_svc._run_sqs_batch = with_the_senders(lambda_svc._run_sqs_batch)


def whose_init_fails_alone(invoke):
    def run(self, *arguments, **named):
        try:
            return invoke(self, *arguments, **named)
        except RuntimeError as error:
            error_type = getattr(error, "error_type", "Runtime.ExitError")
            payload = {"errorType": error_type, "errorMessage": str(error)}
            return {"status": "error", "error": str(error), "error_payload": payload, "cold_start": True, "log": ""}

    return run


lambda_runtime.ProvidedWorker.invoke = whose_init_fails_alone(lambda_runtime.ProvidedWorker.invoke)

# With TLS it also listens on port 443 if that looks free, for which two labs that start at once would fight.
app._port_is_bindable = lambda host, port: False


def end_with_the_lab():
    """The lab holds the other end of standard input, however it ends; then end the Lambdas too."""
    # Not by sys.stdin, whose lock a thread must not hold when Python ends.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


threading.Thread(target=end_with_the_lab, daemon=True).start()
app.main()
