"""The wire contracts: protobuf sources and their generated stubs."""
