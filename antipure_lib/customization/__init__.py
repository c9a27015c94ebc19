"""What an abuser does then: a latent model learns a person from a few photos."""
