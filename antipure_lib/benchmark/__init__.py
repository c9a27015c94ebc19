"""The workflow of purification and customization, measured: cells, tables, verdicts."""
