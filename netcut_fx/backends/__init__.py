"""Compilers. `base` says what one has to offer; only `netcut_fx.backends.tvm` imports tvm."""
