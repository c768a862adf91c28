"""What the last stages share: reading scores, tables as text, plots, pictures, the HTML page."""
