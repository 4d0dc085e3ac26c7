"""What a person reads on the page: words, pictures, progress."""
