"""Speed: anymq against raw clients and peers, on the same work."""
