"""The four gRPC services, one file each: decode, call one object, encode. Only this room knows protobuf messages."""
