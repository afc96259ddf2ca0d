"""Room of the services that people build on the platform: scheduler, rate limiter, configuration."""
