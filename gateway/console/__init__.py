"""The console: a page on the gateway's HTTP port, and the calls as JSON that it makes."""
