"""What it takes to see the service: rules, a dashboard, and a load that fills it."""
