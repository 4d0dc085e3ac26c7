"""What a prompt says: its counts, forms of words, syntax and length."""
