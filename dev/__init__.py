"""What developers and tests need and no operator gets: the local stack of real servers, and the demo that runs on it."""
