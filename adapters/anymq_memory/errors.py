"""What exceptions mean: there is no client library, so there is nothing to map."""

from anymq.driver import ErrorTable

ERRORS: ErrorTable = {}
