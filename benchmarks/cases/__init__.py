"""What is measured: a module for each case. It says so in its first line, and has `measure(bench)`."""
