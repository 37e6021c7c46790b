"""What is declared as plain data: fields of specifications, and figures."""
