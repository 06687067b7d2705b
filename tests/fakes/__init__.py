"""Stand-ins for what real servers do not do on demand; each passes the tests that the real one passes."""
