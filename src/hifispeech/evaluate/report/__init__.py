"""Pictures, sounds and the HTML page of an evaluation."""
