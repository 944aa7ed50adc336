"""What each life of the control plane is born with; its garbage collector need not look at that."""

import gc

import controlplane.app.serving
import controlplane.cli.serve  # noqa: F401

gc.freeze()
