"""One module a family of backbones: its registrations, how it is built, how its published weights are read."""
