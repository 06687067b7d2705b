"""What a team's statements say reaches nobody: Vault and PostgreSQL quote them, with passwords in them (L).

Vault replaces the managing user's password wherever it occurs, so that a text that is shown confirms a guess at it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leasegate.access.v1 import operator_service_pb2 as operator
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import CREATE, OPERATOR, ROLE, Callee, Dar, World, in_process, put_role, world
from tests.servers import Servers

MARK = "sesame"
"""Stands beside the password in each statement, and is a guess at the managing user's."""
SAID = f"{MARK} {{{{password}}}} {{{{name}}}}"
RAISES = [
    f"DO $$ BEGIN RAISE EXCEPTION '%', '{SAID}'; END $$;",
    f"DO $$ BEGIN RAISE EXCEPTION 'm' USING DETAIL = '{SAID}', HINT = '{SAID}'; END $$;",
    f"DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = '{SAID} (SQLSTATE 08006)', ERRCODE = '57P03'; END $$;",
    f"DO $$ BEGIN RAISE EXCEPTION '%', E'lease not found\\n{SAID}\\x1b[2J' || repeat('x', 5000); END $$;",
    f"SELECT '{SAID}'::int;",
    f'SELECT "{SAID}";',
    f"{MARK} '{{{{password}}}}';",
    f'CREATE ROLE "{SAID}"; CREATE ROLE "{SAID}";',
    f"SELECT set_config('{SAID}', '', false);",
]


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("texts"), mount="team/texts") as found:
        yield found


@pytest.fixture
def callee(made: World) -> Iterator[Callee]:
    with in_process(made) as found:
        yield found


def check_unseen(made: World, dar: Dar, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an answer, a condition, a log line nor the ledger has a word of it."""
    answer, out = dar.ensure(), capsys.readouterr()
    for text in (shown, str(answer), out.out, out.err):
        assert MARK not in text
    for file in made.folder.glob("ledger.db*"):
        assert MARK.encode() not in file.read_bytes()


@pytest.mark.parametrize("number", range(len(RAISES)))
def test_what_a_creation_statement_says_is_shown_nowhere(
    made: World, callee: Callee, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    made.write_role(f"k8s.-.demo.says-{number}", create=[RAISES[number]])
    put_role(made, callee, name=f"says-{number}")
    dar = Dar(callee, role=f"says-{number}")
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.VaultFailedError, match=r"PostgreSQL refused with SQLSTATE \w{5}") as failed:
        dar.claim()
    assert "08006" not in failed.value.message  # the last code is PostgreSQL's
    check_unseen(made, dar, repr(failed.value) + str(failed.value.metadata), capsys)
    dar.end()


@pytest.mark.parametrize("guess", ["root", "toor"], ids=["right", "wrong"])
def test_an_answer_confirms_no_guess_at_the_managing_password(made: World, callee: Callee, guess: str) -> None:
    made.write_role(f"k8s.-.demo.guess-{guess}", create=[f"DO $$ BEGIN RAISE EXCEPTION '{guess}'; END $$;"])
    put_role(made, callee, name=f"guess-{guess}")
    dar = Dar(callee, role=f"guess-{guess}")
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.VaultFailedError) as failed:
        dar.claim()
    assert failed.value.message == (
        f"Vault answered 500 for {made.mount}/creds/k8s.-.demo.guess-{guess}: "
        "PostgreSQL refused with SQLSTATE P0001: a statement raised an exception"
    )
    dar.end()


def test_what_renewal_and_revocation_say_is_shown_nowhere(
    made: World, callee: Callee, capsys: pytest.CaptureFixture[str]
) -> None:
    made.servers.must(
        "POST",
        f"{made.mount}/roles/{ROLE}",
        db_name="k8s.-.demo.postgres-app",
        default_ttl="1h",
        max_ttl="24h",
        creation_statements=CREATE,
        renew_statements=[f"SELECT '{MARK} {{{{name}}}}: lease not found'::int;"],
        revocation_statements=[f"SELECT '{MARK} {{{{name}}}}'::int;"],
    )
    put_role(made, callee)
    dar = Dar(callee)
    credential = dar.issue()
    with pytest.raises(errors.VaultRefusedError, match="SQLSTATE 22P02") as failed:
        callee.as_(OPERATOR).operator.RenewLease(
            operator.OperatorServiceRenewLeaseRequest(handle=credential.lease.handle)
        )
    dar.decide("DENIED")
    ledger = made.folder / "ledger.db-wal"
    eventually(lambda: b"PostgreSQL refused with SQLSTATE 22P02" in ledger.read_bytes(), timeout_s=10)
    check_unseen(made, dar, str(failed.value), capsys)
    made.servers.must("POST", f"sys/leases/revoke-force/{made.mount}")
