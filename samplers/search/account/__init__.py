"""What is told of a search: its trace, events, evidence and families."""
