"""What may cross a hospital's border: files, messages, receipts and their checks. No torch."""
