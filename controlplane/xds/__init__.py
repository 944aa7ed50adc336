"""The xDS protocol without I/O: messages in, messages out, no sockets, no clock."""
