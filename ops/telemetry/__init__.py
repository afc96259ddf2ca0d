"""Where OpenTelemetry's SDK and exporters are set up."""
