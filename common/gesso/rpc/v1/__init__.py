"""Generated from the .proto files beside it; see tools in the Makefile."""
