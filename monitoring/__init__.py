"""Monitoring: Prometheus rules, a Grafana dashboard and a load generator that fills it."""
