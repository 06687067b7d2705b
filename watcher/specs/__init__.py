"""Translates the YAML of the four kinds to protobuf messages. Pure: a wrong field is an error that names it."""
