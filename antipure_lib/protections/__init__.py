"""Every protection by name: AntiPure's rivals, its ablations and the controls, one method per file."""
