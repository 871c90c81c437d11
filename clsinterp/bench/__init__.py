"""Speed and memory on the machine at hand, each against something else measured in the same run. Nothing is asserted."""
