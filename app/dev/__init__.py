"""`cronspace dev`: Redis, the API and a worker on this machine, under one supervisor."""
