"""Later refinements of the search's best candidates: rounding, and reconstruction by layers and by regions."""
