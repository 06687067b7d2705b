"""Stand-ins for what real servers cannot be made to do on demand; each also passes the tests that the real one passes."""
