"""What notebook cells call: figures, tables, the panel."""
