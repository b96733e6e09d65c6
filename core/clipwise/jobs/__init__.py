"""Jobs: specification, states, plan and delivery."""
