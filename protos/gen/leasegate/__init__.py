"""Generated from protos/leasegate by protos/generate.sh."""
