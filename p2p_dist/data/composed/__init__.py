"""Songs composed by a seeded program and rendered with a sound font: nobody has a claim to them, and their beats are exact."""
