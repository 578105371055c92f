"""Dead letters: events that can never be applied. Setting them aside, looking at them, letting them go."""
