"""The four gRPC services, one file each: decode, call the domain once, encode. Only this package knows protobuf messages."""
