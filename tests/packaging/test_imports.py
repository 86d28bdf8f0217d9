"""The core stands alone: importing it needs no client library and no adapter."""

from __future__ import annotations

import subprocess
import sys

CLIENTS = ("aiokafka", "aio_pika", "aiormq", "nats", "redis")

IMPORT_CORE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {CLIENTS!r} or root.startswith("anymq_"):
            raise ImportError(f"the core imported {{name}}")

sys.meta_path.insert(0, Refuse())
import anymq
for name in sorted(getattr(anymq, "__all__", ())):
    getattr(anymq, name)
print(*(name for name in sys.modules if name.partition(".")[0] in {CLIENTS!r}))
"""


def test_the_core_imports_no_client_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_CORE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
