"""Generated from larrey.proto by `make protocol`; not edited by hand."""
