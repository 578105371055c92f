"""What it takes to run the system somewhere; the product itself never imports it."""
