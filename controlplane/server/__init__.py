"""The gRPC side: xDS streams and the stats intake."""
