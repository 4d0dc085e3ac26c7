"""Published files and the networks in them: listed, checked, loaded, held, fed."""
