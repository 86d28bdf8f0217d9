"""Performance of anymq, raw clients and peers on the same work."""
