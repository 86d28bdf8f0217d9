"""The table of errors: empty, because there is no client library."""

from anymq.driver import ErrorTable

ERRORS: ErrorTable = {}
