"""Pure decisions over records: no port is asked, nothing is kept."""
