"""Side-by-side measurements on one machine; `make bench` prints a table and writes it as JSON."""
