"""--require-verified-requester from the annotation to the Secret, on real servers."""

from __future__ import annotations

from dev.stack.stack import LocalStack
from tests.e2e.crowd import access_set
from tests.e2e.space import ENGINE, REQUEST, ROLE, space
from tests.eventually import eventually

BEHALF, VERIFIED = "leasegate.dev/on-behalf-of", "leasegate.dev/verified-by"


def test_a_request_gets_its_secret_once_a_portal_vouches_for_it(stack: LocalStack) -> None:
    with access_set(stack, REQUIRE_VERIFIED_REQUESTER="true"), space(stack, "verified", at_once=True) as made:
        made.apply(*made.guide("postgres-app", "postgresSecretEngine", "postgresRole"))
        for name in (ENGINE, ROLE):
            made.phase(name, "Success")
        (request,) = [each for each in made.guide("postgresAccessRequest") if each["kind"] == "DatabaseAccessRequest"]
        made.apply(*(each for each in made.guide("postgresAccessRequest") if each["kind"] != "DatabaseAccessRequest"))
        made.apply(request | {"metadata": request["metadata"] | {"annotations": {BEHALF: "hal"}}})

        def waits() -> str:
            condition = made.condition(REQUEST, "RequesterUnverified")
            assert condition.get("reason") == "OnBehalfOfUnverified", made.status(REQUEST)
            return str(condition["message"])

        text = eventually(waits, timeout_s=30, what="RequesterUnverified")
        assert "on behalf of hal, and nobody vouches for that" in text
        assert "no approval counts" in text
        refused = made.vault_command("approve", "databaseaccessrequest", "postgres-cred-rqst")
        assert refused.returncode != 0
        assert "digest" not in made.status(REQUEST)
        made.kubectl("create", "rolebinding", "portal", "--clusterrole=leasegate-portal", "--user=portal")
        vouch = ("annotate", REQUEST, f"{VERIFIED}=portal", "--as=portal", "--overwrite")

        def vouched() -> bool:
            made.kubectl(*vouch, check=False)
            return bool(made.get(REQUEST)["metadata"]["annotations"].get(VERIFIED) == "portal")

        eventually(vouched, timeout_s=30, what="the portal's right")
        described = made.vault_command("describe", "databaseaccessrequest", "postgres-cred-rqst").stdout
        assert "On behalf of: hal\nVerified by: portal\n" in described
        assert made.secret(made.granted())["username"]
        assert not made.condition(REQUEST, "RequesterUnverified")
