"""What runs by itself: the worker pool over due work, and the periodic tasks."""
