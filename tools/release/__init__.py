"""What a release needs: oldest packages, pictures."""
