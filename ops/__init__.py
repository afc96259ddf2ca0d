"""Operations: the command line and telemetry."""
