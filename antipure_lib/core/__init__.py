"""The paper's method. Read diffusion, guidance, pgd, antipure; tiles and images are its two conventions."""
