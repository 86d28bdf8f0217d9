"""Complete programs that use anymq."""
