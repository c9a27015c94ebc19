"""People who don't exist: drawn from seeds, posed, rendered and photographed."""
