"""All of Riptide on one machine: prepares what is missing, starts the processes, ends them."""
