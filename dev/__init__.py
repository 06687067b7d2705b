"""Tools for developers and tests, in no wheel or image: local stack, demo, reference pages, prose check."""
