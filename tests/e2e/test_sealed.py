"""Vault sealed for a minute in the middle of everything."""

from __future__ import annotations

import json
import threading

import pytest

from dev.demo.story import EXAMPLES, NotSeenError, Story
from dev.stack.stack import LocalStack
from tests.eventually import eventually

APPROVE = "kubectl vault approve databaseaccessrequest postgres-cred-rqst -n demo"


@pytest.mark.timeout(400)
def test_a_minute_without_vault_needs_nobody(stack: LocalStack) -> None:
    """What is applied and approved while Vault is sealed reports that, and converges after the unseal by itself."""
    story = Story(stack)
    shell = story.shell
    shell.ok("kubectl create ns demo")
    shell.ok(f"kubectl apply -n demo -f '{stack.enabled_namespace('demo')}'")
    for file in ("postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest"):
        shell.ok(f"kubectl apply -f {EXAMPLES}/{file}.yaml")
    eventually(lambda: story.status().get("digest"), what="the digest of the request")

    stack.seal()
    shell.ok(APPROVE)
    late = json.loads(shell.ok(f"kubectl create --dry-run=client -o json -f {EXAMPLES}/postgresRole.yaml"))
    late["metadata"]["name"] = "late-role"
    stack.kubectl("apply", "-f", "-", input=json.dumps(late))
    role = "kubectl get postgresrole -n demo late-role"
    eventually(lambda: "sealed" in shell.ok(f"{role} -o yaml").lower(), what="the status that says why", timeout_s=45)
    threading.Event().wait(60)  # the minute of the requirement: the sealed Vault itself is what is tested
    assert story.database_users() == []
    stack.unseal()

    def granted() -> bool:
        status = story.status()
        return bool(status.get("secret")) and bool(status.get("lease"))

    eventually(granted, timeout_s=60, what="the Secret after the unseal")
    eventually(lambda: "Success" in shell.ok(role), timeout_s=60, what="the role that was applied meanwhile")
    assert len(story.database_users()) == 1

    stack.seal()
    shell.ok("kubectl delete databaseaccessrequest -n demo postgres-cred-rqst --timeout=30s")
    stack.unseal()

    def gone() -> bool:
        try:
            return bool(story._no_user())
        except NotSeenError as err:
            raise AssertionError(str(err)) from err

    eventually(gone, timeout_s=90, what="the user's drop after the unseal")
    shell.ok("kubectl delete namespace demo --timeout=60s")
