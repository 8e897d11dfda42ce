"""What the processes of a check compute: a module for each check, with a function measure(place)."""
