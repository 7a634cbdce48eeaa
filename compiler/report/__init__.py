"""What commands print: tables, texts and documents of what the driver gives."""
