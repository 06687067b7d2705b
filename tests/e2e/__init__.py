"""The guide and its promises on the whole local stack: real Kubernetes, OpenBao, PostgreSQL, and the four processes."""
