"""What is declared as plain data: measures, figures and sections, and how numbers are written."""
