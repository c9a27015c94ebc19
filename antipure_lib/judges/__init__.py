"""Who is shown, how visible a change is, and what purification leaves of it."""
