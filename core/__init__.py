"""What every room needs and that needs no room: settings, run context, errors, models, logging."""
