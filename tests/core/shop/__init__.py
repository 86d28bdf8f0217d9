"""An application in several files, for `tests/core/test_router.py`."""
