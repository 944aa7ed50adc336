"""Turnout: an Envoy xDS control plane that releases by policy.

The storeys, top to bottom (imports go down only; import-linter holds it)::

    cli, demo, app                      shell
    web | server | stores | sources     adapters, strangers to one another
    resources                           Traffic -> xDS resources (bytes)
    release                             what happens next, and why
    evidence                            statistics on counts
    policy                              what operators write
    xds                                 the protocol without I/O
    _pb                                 generated from protos/
"""

__version__ = "0.1.0"
