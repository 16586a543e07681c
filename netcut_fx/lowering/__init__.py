"""How fx nodes become primitive operations. `netcut_fx.ops` is the door; nothing outside it needs to come in here."""
