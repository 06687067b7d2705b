"""Guards of documents, words and layout; they start no server."""
