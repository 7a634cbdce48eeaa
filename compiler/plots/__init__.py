"""Pictures of training and of trained networks, by matplotlib."""
