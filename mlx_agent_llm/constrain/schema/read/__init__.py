"""What a JSON Schema says: its document, and what each keyword means."""
