"""Diagnosis of NATS: servers without JetStream, users without rights, accounts at their limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import anymq
from anymq_nats.checks import replicas
from brokers.nats import NATS
from tests.adapters.diagnosing import diagnosis
from tests.adapters.private import free_ports, private_server

pytestmark = [pytest.mark.nats, pytest.mark.xdist_group("nats-private")]

TLS = Path(__file__).parent / "tls"
USERS = """
accounts {
  APP {
    jetstream: { max_file: 100MB, max_streams: 20 }
    users: [
      { user: all, password: secret }
      { user: reader, password: secret, permissions: {
          publish: { allow: ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*"] } } }
      { user: silent, password: secret, permissions: {
          publish: { allow: [">"], deny: ["doctor.*"] } } }
    ]
  }
  FULL { jetstream: { max_file: 100MB, max_streams: 1 }, users: [{ user: full, password: secret }] }
  NONE { users: [{ user: none, password: secret }] }
}
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("nats")
    with private_server(NATS(), folder, lambda text: text + USERS, ready=False) as found:
        yield found


async def test_a_user_who_may_do_everything(port: int) -> None:
    found = await diagnosis(f"nats://all:secret@127.0.0.1:{port}")
    assert [check for check in found.values() if check.outcome in ("failed", "skipped")] == []
    assert found["file storage"].detail == "0 of 100 MiB used"
    assert found["streams"].detail == "0 of 20 used"
    assert found["can publish"].outcome == "ok"


async def test_a_user_who_may_create_nothing(port: int) -> None:
    found = await diagnosis(f"nats://reader:secret@127.0.0.1:{port}")
    assert found["can create topics"].outcome == "failed"
    assert "permissions violation" in found["can create topics"].detail.lower()
    assert "$JS.API.>" in found["can create topics"].fix
    assert found["can delete"].outcome == "skipped"
    assert "secret" not in str(found)


async def test_a_user_who_may_not_publish(port: int) -> None:
    found = await diagnosis(f"nats://silent:secret@127.0.0.1:{port}", prefix="doctor.")
    assert found["can create topics"].outcome == "ok"
    assert found["can publish"].outcome == "failed"
    assert "doctor." in found["can publish"].detail
    assert found["can receive"].outcome == "skipped"
    assert found["can delete"].outcome == "ok"


async def test_an_account_at_its_limit(port: int) -> None:
    url = f"nats://full:secret@127.0.0.1:{port}"
    found = await diagnosis(f"{url}?declare=false")
    assert found["streams"].outcome == "ok"
    async with anymq.connect(url) as broker:
        await broker.publish("orders", "x")
        found = await diagnosis(url)
    assert found["streams"].outcome == "failed"
    assert found["streams"].detail == "1 of 1 used"
    assert found["can create topics"].outcome == "failed"


async def test_an_account_without_jetstream(port: int) -> None:
    found = await diagnosis(f"nats://none:secret@127.0.0.1:{port}")
    failed = [check for check in found.values() if check.outcome == "failed"]
    assert failed
    assert "jetstream" in str(failed).lower()


async def test_a_wrong_password(port: int) -> None:
    found = await diagnosis(f"nats://all:hunter2@127.0.0.1:{port}")
    assert found["TCP"].outcome == "ok"
    assert found["connection"].outcome == "failed"
    assert "password" in found["connection"].fix
    assert "hunter2" not in str(found)


async def test_one_dead_host_of_three_is_a_warning(port: int) -> None:
    dead = free_ports(2)
    hosts = f"127.0.0.1:{dead[0]},127.0.0.1:{port},127.0.0.1:{dead[1]}"
    found = await diagnosis(f"nats://all:secret@{hosts}")
    assert found[f"TCP 127.0.0.1:{dead[0]}"].outcome == "warning"
    assert found[f"TCP 127.0.0.1:{port}"].outcome == "ok"
    assert found["connection"].outcome == "ok"
    assert all(check.outcome != "failed" for check in found.values())


async def test_a_plaintext_server_behind_the_tls_scheme(port: int) -> None:
    found = await diagnosis(f"tls://127.0.0.1:{port}")
    assert found["TLS"].outcome == "failed"
    assert found["TLS"].detail == "the server offers no TLS"
    assert "scheme without TLS" in found["TLS"].fix
    assert found["connection"].outcome == "skipped"


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    def without(text: str) -> str:
        return "".join(line for line in text.splitlines(True) if "jetstream" not in line)

    with private_server(NATS(), tmp_path, without, ready=False) as port:
        found = await diagnosis(f"nats://127.0.0.1:{port}")
    assert found["connection"].outcome == "failed"
    assert "--jetstream" in found["connection"].detail


async def test_tls_after_the_greeting(tmp_path: Path) -> None:
    tls = f'\ntls {{ cert_file: "{TLS}/server.pem", key_file: "{TLS}/server.key" }}\n'
    with private_server(NATS(), tmp_path, lambda text: text + tls, ready=False) as port:
        trusted = await diagnosis(f"tls://127.0.0.1:{port}?ca={TLS}/ca.pem")
        unknown = await diagnosis(f"tls://127.0.0.1:{port}")
    assert trusted["TLS"].outcome == "ok"
    assert "TLSv1.3" in trusted["TLS"].detail
    assert "valid until 2126" in trusted["TLS"].detail
    assert trusted["can publish"].outcome == "ok"
    assert unknown["TLS"].outcome == "failed"
    assert "ca=" in unknown["TLS"].fix


@pytest.mark.parametrize(
    ("cluster", "count", "outcome"), [(None, 1, "ok"), ("c", 1, "failed"), ("c", 3, "ok")]
)
def test_one_copy_in_a_cluster(cluster: str | None, count: int, outcome: str) -> None:
    found = replicas(cluster, count)
    assert found.outcome == outcome
    assert ("replicas=3" in found.fix) is (outcome == "failed")
