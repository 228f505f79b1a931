"""Starts MiniStack, ends it with the lab, and corrects what keeps AWS's own policies from holding unchanged.

IAM has no action for SQS's batch calls: each is allowed by its single call's action
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html).
MiniStack 1.5.33 checks them under names of their own, so a policy that is right on AWS is refused.
"""

import os
import signal
import threading

from ministack import app
from ministack.core import iam_actions

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

# With TLS it also listens on port 443 if that looks free, for which two labs that start at once would fight.
app._port_is_bindable = lambda host, port: False


def end_with_the_lab():
    """The lab holds the other end of standard input, however it ends; then end the Lambdas too."""
    # Not by sys.stdin, whose lock a thread must not hold when Python ends.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


threading.Thread(target=end_with_the_lab, daemon=True).start()
app.main()
