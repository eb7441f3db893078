"""Load tests with Locust: `locust -f loadtest/` takes every file here that has no leading underscore."""
